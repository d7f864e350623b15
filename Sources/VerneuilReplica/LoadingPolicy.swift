/// Which chunks of a snapshot are fetched before anyone reads them (docs/REPLICAS.md, Loading).
public enum LoadingPolicy: Hashable, Sendable {
    /// All, before the snapshot is used.
    case eager
    /// About the square root of their number, from the first on, but at least
    /// `min` and at most `max`, and the last one. Opening doesn't wait for them.
    case partial(min: Int, max: Int)

    /// 1 to 16 MiB, by the size of the database.
    public static let `default` = LoadingPolicy.partial(min: 16, max: 256)

    /// How many of the first chunks of a database of `count` chunks.
    package func initialChunks(of count: Int) -> Int {
        switch self {
        case .eager: return count
        case .partial(let least, let most):
            let root = Int(Double(count).squareRoot().rounded(.up))
            return Swift.max(0, Swift.min(count, Swift.min(Swift.max(root, least), Swift.max(most, least))))
        }
    }
}

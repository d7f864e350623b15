import VerneuilFormat
import VerneuilReplica
import VerneuilStore
import VerneuilSystem

extension Engine {
    /// Fetches a manifest's bytes, and decodes as much as they tell alone. Waits for the network.
    public func manifest(_ reference: ManifestReference) throws(ReplicaError) -> ManifestSource.Stored {
        try manifestSource.fetch(try location(reference))
    }

    /// The same, verified whole, which may take one more object from the stores.
    public func resolvedManifest(_ reference: ManifestReference) throws(ReplicaError) -> Manifest {
        try manifestSource.resolve(try manifest(reference).manifest)
    }

    private var manifestSource: ManifestSource {
        ManifestSource(
            chunks: ChunkSource(caches: replicas.caches, stores: stores, parallelism: replicas.parallelism),
            tap: replicas.tap)
    }

    private func location(_ reference: ManifestReference) throws(ReplicaError) -> ReplicaLocation {
        switch reference {
        case .file(let path): return .file(path)
        case .stored(let database):
            if stores.isEmpty {
                throw .refused("\(reference): no store is configured to fetch it from")
            }
            return .manifest(name: database.manifestName)
        case .url, .object: throw .refused("\(reference): not supported")
        }
    }
}

// swift-tools-version: 6.1
import PackageDescription

// A package of its own, so that users of the library don't build this.
let package = Package(
    name: "verneuil-benchmarks",
    platforms: [.macOS(.v15)],
    dependencies: [.package(name: "verneuil", path: "..")],
    targets: [
        .executableTarget(
            name: "fingerprint-bench",
            dependencies: [.product(name: "VerneuilFormat", package: "verneuil")],
            swiftSettings: [.swiftLanguageMode(.v6)], linkerSettings: [.linkedLibrary("zstd")]),
        .systemLibrary(name: "CSQLite"),
        // Knows the extension by its file alone, as any host does.
        .executableTarget(
            name: "commit-bench", dependencies: ["CSQLite"], swiftSettings: [.swiftLanguageMode(.v6)]),
    ]
)

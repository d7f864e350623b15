// swift-tools-version: 6.1
import PackageDescription

// A package of its own, so that users of the library don't build this.
let package = Package(
    name: "verneuil-benchmarks",
    platforms: [.macOS(.v15)],
    dependencies: [
        .package(name: "verneuil", path: ".."),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
    ],
    targets: [
        .executableTarget(
            name: "fingerprint-bench",
            dependencies: [.product(name: "VerneuilFormat", package: "verneuil")],
            swiftSettings: [.swiftLanguageMode(.v6)], linkerSettings: [.linkedLibrary("zstd")]),
        // Another name than the library's own: a package graph has each name once.
        .systemLibrary(name: "CBenchmarkSQLite"),
        // Knows the extension by its file alone, as any host does.
        .executableTarget(
            name: "commit-bench",
            dependencies: ["CBenchmarkSQLite", .product(name: "CommitCounters", package: "verneuil")],
            swiftSettings: [.swiftLanguageMode(.v6)], linkerSettings: [.linkedLibrary("zstd")]),
        .target(name: "CPlainLoop"),
        .executableTarget(
            name: "replica-bench",
            dependencies: [
                "CBenchmarkSQLite", "CPlainLoop",
                .product(name: "VerneuilFormat", package: "verneuil"),
                .product(name: "VerneuilReplicas", package: "verneuil"),
            ],
            swiftSettings: [.swiftLanguageMode(.v6)], linkerSettings: [.linkedLibrary("zstd")]),
        .executableTarget(
            name: "upload-bench",
            dependencies: [
                "CBenchmarkSQLite",
                .product(name: "VerneuilUploads", package: "verneuil"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: [.swiftLanguageMode(.v6)], linkerSettings: [.linkedLibrary("zstd")]),
    ]
)

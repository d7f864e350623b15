// swift-tools-version: 6.1
import PackageDescription

// The layers, from the ground up. A target sees only what it names here, so a
// wrong import does not compile. docs/DESIGN.md says what each one promises.

let environment = Context.environment

/// Everything that ends in the extension avoids Dispatch and Swift concurrency
/// (docs/DESIGN.md, "Inside other people's processes").
let swiftSettings: [SwiftSetting] = [.swiftLanguageMode(.v6)]

/// The extension is self-contained: the Swift runtime and zstd are linked into
/// it, and nothing but its entry points is visible. Sanitizers can't link
/// statically: VERNEUIL_DYNAMIC_EXTENSION=1 leaves the flags away.
let extensionLinkerSettings: [LinkerSetting] =
    environment["VERNEUIL_DYNAMIC_EXTENSION"] == "1"
    ? []
    : [
        .unsafeFlags([
            "-static-stdlib", "-use-ld=lld",
            "-Xlinker", "-l:libzstd.a",
            "-Xlinker", "--as-needed",
            "-Xlinker", "--gc-sections",
            "-Xlinker", "--exclude-libs=ALL",
            "-Xlinker", "--version-script=\(Context.packageDirectory)/Sources/VerneuilExtension/exports.map",
            "-Xlinker", "-z", "-Xlinker", "nodelete",
            "-Xlinker", "-z", "-Xlinker", "defs",
            "-Xlinker", "-z", "-Xlinker", "relro",
            "-l_FoundationCShims", "-l_FoundationCollections", "-lswiftSynchronization", "-lswiftDispatch",
        ])
    ]

/// zstd's shared library, for everything but the extension, which has it inside.
/// On the targets that are linked, not on CZstd: it would reach the extension from there.
let zstd: [LinkerSetting] = [.linkedLibrary("zstd")]

let package = Package(
    name: "verneuil",
    platforms: [.macOS(.v15)],
    products: [
        .library(name: "Verneuil", targets: ["Verneuil"]),
        .library(name: "verneuil_vfs", type: .dynamic, targets: ["VerneuilExtension"]),
        // The same functions for C programs; scripts/build makes libverneuil.a of it.
        .library(name: "verneuil_static", type: .static, targets: ["VerneuilExtension", "CVerneuilStatic"]),
        .executable(name: "verneuilctl", targets: ["verneuilctl"]),
        // Not API, and free to change: Benchmarks/, a package of its own, measures these. `Verneuil` is what programs use.
        .library(name: "VerneuilFormat", targets: ["VerneuilFormat"]),
        .library(
            name: "VerneuilUploads",
            targets: ["VerneuilReplication", "VerneuilSpool", "VerneuilS3", "VerneuilStore", "VerneuilSystem", "CVerneuil"]),
        .library(name: "CommitCounters", targets: ["CommitCounters"]),
        .library(name: "VerneuilReplicas", targets: ["VerneuilVFS", "VerneuilReplica", "VerneuilStore", "CVerneuil"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.0"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        .package(url: "https://github.com/apple/swift-metrics", from: "2.10.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0"),
    ],
    targets: [
        // C that can't be Swift.
        .systemLibrary(name: "CSQLite", providers: [.apt(["libsqlite3-dev"])]),
        .systemLibrary(name: "CZstd", providers: [.apt(["libzstd-dev"])]),
        .target(name: "CVerneuil"),
        .target(name: "CVerneuilInterface"),
        .target(name: "CVerneuilStatic", dependencies: ["CVerneuil"]),

        // The core.
        .target(
            name: "VerneuilSystem", dependencies: ["CVerneuil"],
            swiftSettings: swiftSettings),
        .target(
            name: "VerneuilFormat", dependencies: ["CVerneuil", "CZstd"],
            swiftSettings: swiftSettings),
        .target(
            name: "VerneuilStore", dependencies: ["VerneuilSystem", "VerneuilFormat"],
            swiftSettings: swiftSettings),
        .target(
            name: "VerneuilS3",
            dependencies: [
                "CVerneuil", "VerneuilStore", "VerneuilSystem",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOTLS", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: swiftSettings),
        .target(
            name: "VerneuilSpool", dependencies: ["VerneuilSystem", "VerneuilFormat"],
            swiftSettings: swiftSettings),
        .target(
            name: "VerneuilReplication",
            dependencies: [
                "CVerneuil", "VerneuilSpool", "VerneuilStore", "VerneuilFormat", "VerneuilSystem",
                .product(name: "Logging", package: "swift-log"),
                // Not Metrics: that one brings Dispatch.
                .product(name: "CoreMetrics", package: "swift-metrics"),
            ],
            swiftSettings: swiftSettings),
        .target(
            name: "VerneuilReplica",
            dependencies: [
                "CVerneuil", "VerneuilStore", "VerneuilFormat", "VerneuilSystem",
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: swiftSettings),
        .target(
            name: "VerneuilVerify",
            dependencies: ["CVerneuil", "VerneuilReplica", "VerneuilStore", "VerneuilFormat", "VerneuilSystem"],
            swiftSettings: swiftSettings),
        .target(
            name: "VerneuilVFS",
            dependencies: [
                "CVerneuil", "VerneuilReplication", "VerneuilReplica", "VerneuilSpool", "VerneuilSystem",
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: swiftSettings),

        // Configuration and assembly, shared by the three products.
        .target(
            name: "VerneuilCore",
            dependencies: [
                "CVerneuil", "VerneuilVFS", "VerneuilS3", "VerneuilStore", "VerneuilReplication", "VerneuilReplica",
                "VerneuilSpool", "VerneuilFormat", "VerneuilSystem",
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: swiftSettings),

        // Products.
        .target(
            name: "Verneuil",
            dependencies: [
                "VerneuilCore", "VerneuilVFS", "VerneuilVerify", "VerneuilReplica", "VerneuilReplication", "VerneuilSpool",
                "VerneuilFormat", "VerneuilSystem", "CSQLite", "CVerneuil",
            ],
            swiftSettings: swiftSettings, linkerSettings: zstd),
        .target(
            name: "VerneuilExtension",
            dependencies: [
                "VerneuilCore", "VerneuilFormat", "CVerneuil", "CVerneuilInterface",
                .product(name: "Logging", package: "swift-log"),
            ],
            exclude: ["exports.map"],
            swiftSettings: swiftSettings, linkerSettings: extensionLinkerSettings),
        .executableTarget(
            name: "verneuilctl",
            dependencies: [
                "Verneuil", "VerneuilCore", "VerneuilVerify", "VerneuilReplica", "VerneuilReplication", "VerneuilS3",
                "VerneuilSpool", "VerneuilStore", "VerneuilFormat", "VerneuilSystem", "CVerneuil", "CSQLite",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: swiftSettings),

        // Tests.
        .target(
            name: "ManifestProto", dependencies: [.product(name: "SwiftProtobuf", package: "swift-protobuf")],
            path: "Tests/Support/ManifestProto", exclude: ["manifest.proto"],
            swiftSettings: swiftSettings),
        .target(
            name: "FormatTestSupport", dependencies: ["VerneuilFormat"], path: "Tests/Support/FormatTestSupport",
            swiftSettings: swiftSettings),
        .testTarget(
            name: "VerneuilFormatTests",
            dependencies: ["VerneuilFormat", "CZstd", "ManifestProto", "FormatTestSupport"],
            swiftSettings: swiftSettings, linkerSettings: zstd),
        .testTarget(
            name: "VerneuilStoreTests", dependencies: ["VerneuilStore", "VerneuilSystem", "CVerneuil"],
            swiftSettings: swiftSettings),
        .target(
            name: "TestServers",
            dependencies: ["CVerneuil", "VerneuilSystem", .product(name: "Crypto", package: "swift-crypto")],
            path: "Tests/Support/TestServers",
            swiftSettings: swiftSettings),
        .target(name: "CForkSupport", path: "Tests/Support/CForkSupport"),
        .executableTarget(
            name: "store-fork-tool",
            dependencies: ["VerneuilS3", "VerneuilStore", "VerneuilSystem", "CForkSupport"],
            path: "Tests/Support/StoreForkTool", swiftSettings: swiftSettings, linkerSettings: zstd),
        .testTarget(
            name: "VerneuilS3Tests",
            dependencies: [
                "VerneuilS3", "VerneuilStore", "VerneuilSystem", "CVerneuil", "TestServers", "store-fork-tool",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: swiftSettings, linkerSettings: zstd),
        .testTarget(
            name: "VerneuilSpoolTests", dependencies: ["VerneuilSpool", "VerneuilFormat", "VerneuilSystem", "CVerneuil", "FormatTestSupport"],
            swiftSettings: swiftSettings, linkerSettings: zstd),
        .target(
            name: "CReplicaTestSupport", path: "Tests/Support/CReplicaTestSupport",
            linkerSettings: [.linkedLibrary("sqlite3")]),
        .target(
            name: "ReplicaTestSupport",
            dependencies: ["CSQLite", "CVerneuil", "VerneuilFormat", "VerneuilStore", "VerneuilSystem"],
            path: "Tests/Support/ReplicaTestSupport", swiftSettings: swiftSettings),
        .executableTarget(
            name: "replica-test-helper",
            dependencies: [
                "CReplicaTestSupport", "CSQLite", "ReplicaTestSupport", "VerneuilVFS", "VerneuilReplica", "VerneuilStore",
                "VerneuilFormat",
            ],
            path: "Tests/Support/replica-test-helper", swiftSettings: swiftSettings, linkerSettings: zstd),
        .testTarget(
            name: "VerneuilReplicaTests",
            dependencies: [
                "CSQLite", "CVerneuil", "VerneuilReplica", "VerneuilStore", "VerneuilFormat", "VerneuilSystem",
                "FormatTestSupport", "ReplicaTestSupport", "replica-test-helper",
            ],
            swiftSettings: swiftSettings, linkerSettings: zstd),
        .testTarget(
            name: "VerneuilSnapshotTests",
            dependencies: [
                "CSQLite", "CVerneuil", "VerneuilVFS", "VerneuilReplica", "VerneuilStore", "VerneuilFormat",
                "VerneuilSystem", "FormatTestSupport", "ReplicaTestSupport", "replica-test-helper",
            ],
            swiftSettings: swiftSettings, linkerSettings: zstd),
        .testTarget(
            name: "VerneuilVerifyTests",
            dependencies: [
                "CSQLite", "CVerneuil", "CZstd", "ManifestProto", "ReplicaTestSupport", "FormatTestSupport", "VerneuilVerify",
                "VerneuilStore", "VerneuilFormat", "VerneuilSystem",
            ],
            swiftSettings: swiftSettings, linkerSettings: zstd),
        .target(name: "CAllocationCount", path: "Tests/Support/CAllocationCount"),
        .target(
            name: "CommitCounters", dependencies: ["CAllocationCount", "CSQLite", "CVerneuil", "VerneuilSpool", "VerneuilSystem"],
            path: "Tests/Support/CommitCounters", swiftSettings: swiftSettings),
        .executableTarget(
            name: "commit-counter", dependencies: ["CommitCounters"], path: "Tests/Support/commit-counter",
            swiftSettings: swiftSettings, linkerSettings: zstd),
        // Find the tool and the extension beside themselves.
        .testTarget(
            name: "IntegrationTests", dependencies: ["verneuilctl", "verneuil-stress", "commit-counter"],
            swiftSettings: swiftSettings),
        .testTarget(
            name: "VerneuilReplicationTests",
            dependencies: [
                "CSQLite", "CVerneuil", "FormatTestSupport", "ReplicaTestSupport", "ProductSupport", "TestServers", "VerneuilVFS", "VerneuilReplication",
                "VerneuilReplica", "VerneuilSpool", "VerneuilS3", "VerneuilStore", "VerneuilFormat", "VerneuilSystem", "verneuilctl",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "MetricsTestKit", package: "swift-metrics"),
            ],
            swiftSettings: swiftSettings, linkerSettings: zstd),
        .testTarget(
            name: "RoundTripTests",
            dependencies: [
                "CSQLite", "CVerneuil", "CZstd", "FormatTestSupport", "ManifestProto", "ReplicaTestSupport", "VerneuilVFS", "VerneuilReplication",
                "VerneuilReplica", "VerneuilSpool", "VerneuilStore", "VerneuilFormat", "VerneuilSystem",
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: swiftSettings, linkerSettings: zstd),
        .testTarget(
            name: "VerneuilCoreTests",
            dependencies: [
                "VerneuilCore", "VerneuilVFS", "VerneuilReplication", "VerneuilReplica", "VerneuilStore", "VerneuilFormat",
                "VerneuilSystem", "CVerneuil", "FormatTestSupport", "ProductSupport", "TestServers",
            ],
            swiftSettings: swiftSettings, linkerSettings: zstd),
        // These run what was built: nothing of it is linked into the tests.
        .target(name: "ProductSupport", path: "Tests/Support/ProductSupport", swiftSettings: swiftSettings),
        .testTarget(
            name: "VerneuilctlTests", dependencies: ["ProductSupport", "FormatTestSupport", "TestServers", "verneuilctl"],
            swiftSettings: swiftSettings, linkerSettings: zstd),
        .executableTarget(
            name: "hello-replication",
            dependencies: ["Verneuil", "CSQLite", .product(name: "Logging", package: "swift-log")], path: "Tests/Support/hello-replication",
            swiftSettings: swiftSettings),
        .executableTarget(
            name: "observed-replication",
            dependencies: [
                "Verneuil", "CSQLite", .product(name: "Logging", package: "swift-log"), .product(name: "Metrics", package: "swift-metrics"),
                .product(name: "MetricsTestKit", package: "swift-metrics"),
            ], path: "Tests/Support/observed-replication", swiftSettings: swiftSettings),
        .testTarget(
            name: "VerneuilExtensionTests",
            dependencies: [
                "ProductSupport", "FormatTestSupport", "TestServers", "VerneuilFormat", "VerneuilSystem", "hello-replication",
                "observed-replication",
            ],
            swiftSettings: swiftSettings, linkerSettings: zstd),
        // What documents say: their programs are run, their lists compared with the sources.
        .testTarget(
            name: "DocumentTests",
            dependencies: ["ProductSupport", "VerneuilCore", "VerneuilSystem", "verneuilctl", "hello-replication", "commit-counter"],
            swiftSettings: swiftSettings, linkerSettings: zstd),
        .target(name: "CTestSupport", path: "Tests/Support/CTestSupport"),
        .target(
            name: "VFSTestSupport",
            dependencies: [
                "VerneuilVFS", "VerneuilReplication", "VerneuilSpool", "VerneuilSystem", "CVerneuil", "CSQLite", "CTestSupport",
                .product(name: "Logging", package: "swift-log"),
            ],
            path: "Tests/Support/VFSTestSupport", swiftSettings: swiftSettings),
        .executableTarget(
            name: "vfs-tool", dependencies: ["VFSTestSupport", "VerneuilStore", "VerneuilSystem", "CVerneuil", "CSQLite"],
            path: "Tests/Support/vfs-tool", swiftSettings: swiftSettings, linkerSettings: zstd),
        .testTarget(
            name: "VerneuilVFSTests",
            dependencies: ["VFSTestSupport", "FormatTestSupport", "VerneuilVFS", "VerneuilSystem", "CVerneuil", "CSQLite", "vfs-tool"],
            swiftSettings: swiftSettings, linkerSettings: zstd),
        .executableTarget(
            name: "verneuil-stress",
            dependencies: [
                "VerneuilVFS", "VerneuilReplication", "VerneuilReplica", "VerneuilSpool", "VerneuilStore", "VerneuilFormat",
                "VerneuilSystem", "CVerneuil", "CSQLite", "CForkSupport", "CTestSupport", "VFSTestSupport", "FormatTestSupport",
                "CommitCounters",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            path: "Tests/Support/verneuil-stress", exclude: ["README.md"], swiftSettings: swiftSettings, linkerSettings: zstd),
    ]
)

// Sanitizers (scripts/sanitize) are for what is ours and builds in seconds: without the S3 client, whose NIO and
// BoringSSL take minutes in yet another configuration, and what stands on it.
if environment["VERNEUIL_WITHOUT_S3"] == "1" {
    let network: Set = ["swift-nio", "swift-nio-ssl", "swift-crypto"]
    func needs(_ target: Target, anyOf names: Set<String>) -> Bool {
        target.dependencies.contains { dependency in
            switch dependency {
            case .byNameItem(let name, _), .targetItem(let name, _): names.contains(name)
            case .productItem(_, let package, _, _): package.map(network.contains) ?? false
            default: false
            }
        }
    }
    var gone: Set = ["VerneuilS3"]
    while let next = package.targets.first(where: { !gone.contains($0.name) && needs($0, anyOf: gone) }) { gone.insert(next.name) }
    package.targets.removeAll { gone.contains($0.name) }
    package.products = []
    package.dependencies.removeAll { dependency in
        guard case .sourceControl(_, let location, _) = dependency.kind else { return false }
        return network.contains { location.hasSuffix("/\($0)") }
    }
}

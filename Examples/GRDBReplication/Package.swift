// swift-tools-version: 6.1
import PackageDescription

// A package of its own, as an application's would be. It reaches Verneuil
// through the loadable extension and not as a package: a build of its own of
// Verneuil would compile BoringSSL twice more, for minutes, to the same end.
// An application that wants one binary depends on the `Verneuil` library instead
// and calls `Replication.configure()`; the rest of the program stays as it is.
let package = Package(
    name: "GRDBReplication",
    platforms: [.macOS(.v15)],
    dependencies: [
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0")
    ],
    targets: [
        .executableTarget(
            name: "GRDBReplication",
            dependencies: [
                .product(name: "GRDB", package: "GRDB.swift"),
                .product(name: "GRDBSQLite", package: "GRDB.swift"),
            ],
            swiftSettings: [.swiftLanguageMode(.v6)])
    ]
)

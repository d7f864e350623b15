import VerneuilFormat
import VerneuilReplica
import VerneuilS3
import VerneuilStore
import VerneuilSystem

extension Engine {
    /// Fetches a manifest's bytes as they are stored: the newest, where several stores have one. Waits for the network.
    public func manifest(_ reference: ManifestReference) throws(ReplicaError) -> [UInt8] {
        switch reference {
        case .file(let path):
            return try manifestSource.fetch(.file(path)).body
        case .stored(let database):
            if stores.isEmpty { throw .refused("\(reference): no store is configured to fetch it from") }
            do throws(ReplicaError) {
                return try manifestSource.fetchNewest(named: database.manifestName).body
            } catch .fetch(let failure) where failure.isMissing {
                throw .refused(
                    "\(database) is not in \(stores.map(\.name).joined(separator: ", nor in ")): no object \(database.manifestName); are its path and host right? \"verneuilctl verify --all\" lists what is stored")
            }
        case .url(let url):
            do throws(StoreError) { return try HTTPDownload.get(url, limit: Body.maximumLength) } catch {
                throw .refused("\(error)")
            }
        case .object(let bucket, let region, let key):
            do throws(StoreError) {
                let store = try S3Store(S3Configuration(region: region, chunkBucket: bucket, manifestBucket: bucket))
                switch try store.get(GetRequest(.manifests, key, limit: Body.maximumLength)) {
                case .found(let body, _): return body
                case .missing, .notModified: throw StoreError(
                    .invalid, store: store.name, operation: "GET \(key)", reason: "there is no such object")
                }
            } catch {
                throw .refused("\(error)")
            }
        }
    }

    /// Decodes and verifies a manifest's bytes, which may take one more object from the stores.
    public func resolve(_ manifest: [UInt8]) throws(ReplicaError) -> Manifest {
        let stored: StoredManifest
        do throws(FormatError) { stored = try StoredManifest(decoding: manifest) } catch { throw .format(error) }
        return try manifestSource.resolve(stored)
    }

    /// What restores the database that a manifest describes, from this configuration's caches and stores.
    public func restore(_ reference: ManifestReference) throws(ReplicaError) -> Restore {
        let manifests = manifestSource
        let body = try manifest(reference)
        return Restore(try resolve(body), from: manifests.chunks)
    }

    /// The same from one store alone, and no cache.
    public func restore(_ reference: ManifestReference, from store: any ObjectStore) throws(ReplicaError) -> Restore {
        let manifests = ManifestSource(
            chunks: ChunkSource(caches: [], stores: [store], parallelism: replicas.parallelism))
        let body: [UInt8]
        if case .stored(let database) = reference {
            body = try manifests.fetch(.manifest(name: database.manifestName)).body
        } else {
            body = try manifest(reference)
        }
        let stored: StoredManifest
        do throws(FormatError) { stored = try StoredManifest(decoding: body) } catch { throw .format(error) }
        return Restore(try manifests.resolve(stored), from: manifests.chunks)
    }

    private var manifestSource: ManifestSource {
        ManifestSource(
            chunks: ChunkSource(caches: replicas.caches, stores: stores, parallelism: replicas.parallelism),
            tap: replicas.tap)
    }
}

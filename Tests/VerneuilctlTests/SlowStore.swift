import Foundation
import ProductSupport

extension Workspace {
    /// Answers one GET at a time, each after a while, and LIST at once: an S3 store that is far away, with this place's objects. A connection that
    /// nobody uses holds up nothing. Ends with its standard input.
    /// - Parameter seconds: each GET's.
    func slowStore(seconds: Double = 0.02) throws -> (config: [String: String], stop: () -> Void) {
        let script = """
            import http.server, os, sys, threading, time, urllib.parse
            turn = threading.Lock()
            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    if "list-type=2" in self.path: return self.list()
                    with turn: time.sleep(\(seconds))
                    try:
                        with open("store" + urllib.parse.unquote(self.path.split("?")[0]), "rb") as f: body = f.read()
                    except OSError: body = None
                    self.answer(body)
                def list(self):
                    directory = "store" + self.path.split("?")[0].rstrip("/")
                    entry = "<Contents><Key>%s</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>%d</Size></Contents>"
                    entries = [entry % (name, os.path.getsize(directory + "/" + name)) for name in sorted(os.listdir(directory))]
                    self.answer(("<ListBucketResult><IsTruncated>false</IsTruncated>" + "".join(entries) + "</ListBucketResult>").encode())
                def answer(self, body):
                    self.send_response(404 if body is None else 200)
                    self.send_header("Content-Length", str(len(body or b"")))
                    self.end_headers()
                    self.wfile.write(body or b"")
                def log_message(self, *arguments): pass
            # Python's own 5 are less than one client's connections: the sixth is heard half a minute later.
            http.server.ThreadingHTTPServer.request_queue_size = 256
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            server.handle_error = lambda *arguments: None
            print(server.server_address[1], flush=True)
            threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
            server.serve_forever()
            """
        let server = Process()
        server.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        server.arguments = ["python3", "-c", script]
        server.currentDirectoryURL = URL(fileURLWithPath: path)
        let (input, output) = (Pipe(), Pipe())
        server.standardInput = input
        server.standardOutput = output
        try server.run()
        let port = String(decoding: output.fileHandleForReading.availableData, as: UTF8.self).split(separator: "\n").first ?? "0"
        let config = """
            {"replication_targets": [{"s3": {"region": "us-east-1", "endpoint": "http://127.0.0.1:\(port)", "chunk_bucket": "chunks",
             "manifest_bucket": "manifests", "domain_addressing": false}}]}
            """
        return (
            ["VERNEUIL_CONFIG": config, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"],
            {
                try? input.fileHandleForWriting.close()
                server.waitUntilExit()
            }
        )
    }
}

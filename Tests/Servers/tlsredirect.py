#!/usr/bin/env python3
"""tlsredirect.py PORT CERT KEY URL   - an HTTPS server on 127.0.0.1 that sends every request to URL with 307 (stdlib only)"""
import http.server, signal, ssl, sys
signal.pthread_sigmask(signal.SIG_SETMASK, [])  # who starts us may have blocked SIGTERM
PORT, CERT, KEY, URL = int(sys.argv[1]), *sys.argv[2:5]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def answer(self):
        self.rfile.read(int(self.headers.get('Content-Length', 0)))
        self.send_response(307); self.send_header('Location', URL + self.path); self.send_header('Content-Length', '0'); self.end_headers()
    do_GET = do_PUT = do_HEAD = answer
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    def get_request(self):
        s, a = super().get_request(); s.settimeout(10); return s, a
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(CERT, KEY)
server = Server(('127.0.0.1', PORT), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()

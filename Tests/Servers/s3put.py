#!/usr/bin/env python3
"""s3put.py URL        PUTs standard input, signed (SigV4) with S3_KEY and S3_SECRET, stdlib only. For what a bucket's
configuration is made of: URL = http://127.0.0.1:PORT/BUCKET?lifecycle. Fails with the server's answer."""
import base64, datetime, hashlib, hmac, os, sys, urllib.error, urllib.parse, urllib.request
url = urllib.parse.urlsplit(sys.argv[1]); body = sys.stdin.buffer.read()
key, secret = os.environ["S3_KEY"], os.environ["S3_SECRET"]
now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ"); scope = f"{now[:8]}/us-east-1/s3/aws4_request"
query = "&".join(sorted(part if "=" in part else part + "=" for part in url.query.split("&")))
digest = hashlib.sha256(body).hexdigest()
headers = {"content-md5": base64.b64encode(hashlib.md5(body).digest()).decode(), "host": url.netloc, "x-amz-content-sha256": digest, "x-amz-date": now}
names = ";".join(headers)
request = "\n".join(["PUT", url.path, query, *(f"{k}:{v}" for k, v in headers.items()), "", names, digest])
text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(request.encode()).hexdigest()])
sign = ("AWS4" + secret).encode()
for part in scope.split("/"): sign = hmac.new(sign, part.encode(), hashlib.sha256).digest()
signature = hmac.new(sign, text.encode(), hashlib.sha256).hexdigest()
headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}"
try:
    urllib.request.urlopen(urllib.request.Request(f"{url.scheme}://{url.netloc}{url.path}?{query}", body, headers, method="PUT"), timeout=30)
except urllib.error.HTTPError as error:
    sys.exit(f"{error.code} {error.read().decode()}")

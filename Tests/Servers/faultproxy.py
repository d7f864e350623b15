#!/usr/bin/env python3
"""faultproxy.py LISTENPORT UPSTREAMPORT [CONTROLPORT]   - fault-injecting HTTP/1.1 proxy for S3 tests (stdlib only, loopback only)
SigV4 stays valid: bytes, Host header included, pass unchanged. Plain HTTP on both sides.
Rules are set while running:  curl -X PUT  127.0.0.1:CONTROL/rules -d '[{"match":"PUT /b/.*","p":0.3,"fault":"503"}]'
                              curl 127.0.0.1:CONTROL/stats  (connections accepted, requests seen)
                              curl 127.0.0.1:CONTROL/rules   |  curl 127.0.0.1:CONTROL/log   |  curl -X DELETE 127.0.0.1:CONTROL/rules
Each rule: match = regex on "METHOD /path?query" (default all), p = probability (1), n = how many times at most, skip = let the first k pass;
the first rule that fires wins. fault =
  "503" "500" "429" ..  answer with that status (S3 error XML, SlowDown/InternalError) without asking upstream
  "reset_before"        TCP reset before anything is forwarded        "hang"          never answer (until the client gives up)
  "reset_request"       forward half of the body, then reset both     "lost_response" forward all, read the answer, reset the client: applied, not acknowledged
  "truncate"            send the answer's head and half of its body, then close      "corrupt"  flip one bit in the middle of the answer's body
  "stall"               stop in the middle of the answer's body for `ms`, then go on "200_error" status 200 with an <Error> body (CopyObject/CompleteMultipartUpload)
  "delay"               wait `ms` (+ up to `jitter`) before forwarding "throttle"     send the answer's body at `kbps` KiB/s
  "dup"                 send the request twice upstream, return the second answer (a retry by a middle box)"""
import asyncio, sys, re, json, random, socket, struct, time
LP, UP = int(sys.argv[1]), int(sys.argv[2]); CP = int(sys.argv[3]) if len(sys.argv) > 3 else LP + 1
RULES, LOG, STATS = [], [], {'connections': 0, 'requests': 0}
XML = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>%s</Code><Message>injected</Message><RequestId>faultproxy</RequestId></Error>'
CODES = {503: 'SlowDown', 500: 'InternalError', 429: 'TooManyRequests', 400: 'RequestTimeout', 403: 'AccessDenied', 409: 'OperationAborted', 504: 'GatewayTimeout', 502: 'BadGateway',
         404: 'NoSuchKey', 408: 'RequestTimeout', 412: 'PreconditionFailed', 501: 'NotImplemented'}
def pick(line):
    for r in RULES:
        if not re.search(r.get('match', ''), line): continue
        if r.get('skip', 0) > 0: r['skip'] -= 1; continue
        if r.get('n', 1) <= 0 and 'n' in r: continue
        if random.random() < r.get('p', 1):
            if 'n' in r: r['n'] -= 1
            return r
def rst(w):
    s = w.get_extra_info('socket')
    if s: s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    w.transport.abort()
async def head(r):
    b = await r.readuntil(b'\r\n\r\n'); L = b.decode('latin1').split('\r\n')
    return b, L[0], {k.strip().lower(): v.strip() for k, v in (x.split(':', 1) for x in L[1:] if ':' in x)}
async def body(r, h, nobody=False):
    """yields the raw bytes of the body as framed on the wire"""
    if nobody: return
    if h.get('transfer-encoding', '').lower() == 'chunked':
        while True:
            l = await r.readline(); n = int(l.split(b';')[0], 16); yield l + await r.readexactly(n + 2)
            if n == 0: return
    else:
        n = int(h.get('content-length', -1))
        while n:
            d = await r.read(65536 if n < 0 else min(n, 65536))
            if not d: 
                if n > 0: raise ConnectionError('short body')
                return
            if n > 0: n -= len(d)
            yield d
async def conn(cr, cw):
    ur = uw = None; STATS['connections'] += 1
    async def upstream():
        nonlocal ur, uw
        if uw is None or uw.is_closing() or ur.at_eof(): ur, uw = await asyncio.open_connection('127.0.0.1', UP, limit=1 << 20)
    try:
        while True:
            hb, line, h = await head(cr); what = ' '.join(line.split(' ')[:2]); STATS['requests'] += 1; rule = pick(what) or {}; f = str(rule.get('fault', ''))
            if f: LOG.append([round(time.time(), 3), what, f]); del LOG[:-10000]
            if f == 'reset_before': return rst(cw)
            if f == 'hang': await asyncio.sleep(rule.get('ms', 3600000) / 1000); return rst(cw)
            if f == 'delay': await asyncio.sleep((rule.get('ms', 100) + random.random() * rule.get('jitter', 0)) / 1000)
            has = h.get('transfer-encoding') or int(h.get('content-length', 0)) > 0
            if f.isdigit() or f == '200_error':
                if h.get('expect') and has: cw.write(b'HTTP/1.1 100 Continue\r\n\r\n')
                if has:
                    async for _ in body(cr, h): pass
                c = 200 if f == '200_error' else int(f); x = b'' if line.startswith('HEAD') else (XML % (CODES.get(c, 'InternalError') if c != 200 else 'InternalError')).encode()
                cw.write(('HTTP/1.1 %d X\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n' % (c, len(x))).encode() + x); await cw.drain(); continue
            await upstream(); req = [hb]; uw.write(hb)
            if has:
                if h.get('expect', '').lower() == '100-continue':
                    await uw.drain(); b100, l, rh = await head(ur); cw.write(b100); await cw.drain()
                    if ' 100' not in l:
                        async for d in body(ur, rh): cw.write(d)
                        await cw.drain(); return
                sent, half = 0, int(h.get('x-amz-decoded-content-length') or h.get('content-length') or 65536) // 2
                async for d in body(cr, h):
                    if f == 'reset_request' and sent + len(d) >= half: uw.write(d[:max(0, half - sent)]); await uw.drain(); rst(uw); return rst(cw)
                    if f == 'dup': req.append(d)
                    uw.write(d); sent += len(d); await uw.drain()
            elif f == 'reset_request': rst(uw); return rst(cw)
            await uw.drain()
            for again in ((0, 1) if f == 'dup' else (1,)):
                rb, rl, rh = await head(ur)
                while ' 100 ' in rl: rb, rl, rh = await head(ur)
                st = int(rl.split(' ')[1]); nob = line.startswith('HEAD') or st in (204, 304)
                if not again:
                    async for _ in body(ur, rh, nob): pass
                    uw.write(b''.join(req)); await uw.drain()
            if f == 'lost_response':
                async for _ in body(ur, rh, nob): pass
                return rst(cw)
            total = int(rh.get('content-length', 0)); half, sent, t0 = total // 2, 0, time.time(); cw.write(rb)
            async for d in body(ur, rh, nob):
                mid = sent <= half < sent + len(d)
                if f == 'truncate' and mid: cw.write(d[:half - sent]); await cw.drain(); await asyncio.sleep(.05); cw.close(); rst(uw); return
                if f == 'corrupt' and mid: i = half - sent; d = d[:i] + bytes([d[i] ^ 1]) + d[i + 1:]
                if f == 'stall' and mid: cw.write(d[:half - sent]); await cw.drain(); await asyncio.sleep(rule.get('ms', 5000) / 1000); d = d[half - sent:]; sent = half
                cw.write(d); sent += len(d); await cw.drain()
                if f == 'throttle': await asyncio.sleep(max(0, sent / 1024 / rule.get('kbps', 100) - (time.time() - t0)))
            await cw.drain()
            if rh.get('connection', '').lower() == 'close' or rl.startswith('HTTP/1.0'): return
    except (asyncio.IncompleteReadError, ConnectionError, OSError): 
        try: rst(cw)
        except Exception: pass
    finally:
        for w in (cw, uw):
            try: w and w.close()
            except Exception: pass
async def ctl(r, w):
    try:
        hb, line, h = await head(r); m, p = line.split(' ')[:2]; d = await r.readexactly(int(h.get('content-length', 0))); out = ''
        if p == '/rules':
            if m in ('PUT', 'POST'): RULES[:] = json.loads(d); LOG.clear()
            if m == 'DELETE': RULES.clear(); LOG.clear()
            out = json.dumps(RULES)
        elif p == '/stats': out = json.dumps(STATS)
        elif p == '/log': out = json.dumps(LOG)
        w.write(('HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' % (len(out), out)).encode()); await w.drain()
    except Exception as e: w.write(b'HTTP/1.1 400 Bad\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
    w.close()
async def main():
    a = await asyncio.start_server(conn, '127.0.0.1', LP, limit=1 << 20, backlog=512); await asyncio.start_server(ctl, '127.0.0.1', CP)
    print('faultproxy 127.0.0.1:%d -> 127.0.0.1:%d, control :%d' % (LP, UP, CP), flush=True); await a.serve_forever()
try: asyncio.run(main())
except KeyboardInterrupt: pass

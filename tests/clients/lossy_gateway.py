"""Gateways in front of the service that pass every call on, and lose the answer to the first one.

A library that calls through one of them sees its call fail although the service took it, and sends the same again.
"""

import http.client
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import grpc

# Longest that the service may take for one call, in seconds.
CALL_SECONDS_MAX = 60
# Headers that belong to one connection.
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


@contextmanager
def http_gateway(upstream):
    """Yields the gateway's URL, and the bodies of the service's answers as they come."""
    answers = []
    host = urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            connection = http.client.HTTPConnection(host, timeout=CALL_SECONDS_MAX)
            connection.request("POST", self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            answers.append(content)
            if len(answers) == 1:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            """Calls are not logged."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", answers
        finally:
            server.shutdown()
            thread.join()


class _Forwarder(grpc.GenericRpcHandler):
    def __init__(self, channel, answers):
        self.channel = channel
        self.answers = answers

    def service(self, details):
        def forward(request, context):
            metadata = [(name, value) for name, value in details.invocation_metadata if name == "authorization"]
            answer = self.channel.unary_unary(details.method)(request, metadata=metadata, timeout=CALL_SECONDS_MAX)
            self.answers.append(answer)
            if len(self.answers) == 1:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was lost")
            return answer

        return grpc.unary_unary_rpc_method_handler(forward)


@contextmanager
def grpc_gateway(upstream):
    """Yields the gateway's URL, and the service's answers as they come. Messages stay as they are encoded."""
    answers = []
    with grpc.insecure_channel(urlsplit(upstream).netloc) as channel:
        server = grpc.server(ThreadPoolExecutor(max_workers=2), handlers=[_Forwarder(channel, answers)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"http://127.0.0.1:{port}", answers
        finally:
            server.stop(grace=None).wait()

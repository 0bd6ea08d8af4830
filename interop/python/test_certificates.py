"""Certificates on both sides: grpcio, curl and openssl as clients and as services, and two gateways in a row."""

import os
import socket
import subprocess
import tempfile
import unittest
import urllib.request
from concurrent import futures

import grpc

from support import BOUND, error_of, eventually

SERVICE = "interop.v1.Who"
WEB, EDGE = "spiffe://prod/ns/shop/sa/web", "spiffe://prod/ns/shop/sa/edge"
FORGED = [
    ("x-consumer", "root"),
    ("x-forwarded-client-cert", "URI=spiffe://prod/ns/shop/sa/root"),
]

# Beside the service that is called: its callers prove who they are.
FAR = """
listeners:
  public:
    address: 127.0.0.1:{port}
    tls: {{certificates: [{{certificate: far.pem, key: far.key}}], client_ca: ca.pem}}
admin: {{address: "127.0.0.1:{admin}"}}
auth: {{mesh: {{client_certificate: {{allow: ["spiffe://prod/ns/shop/*"]}}}}}}
upstreams: {{service: {{endpoints: ["{upstream}"], protocol: {protocol}}}}}
routes: {{all: {{match: {{path: /*}}, upstream: service, auth: {{require: mesh}}}}}}
"""

# Beside the service that calls: it proves who that is.
NEAR = """
listeners: {{public: {{address: "127.0.0.1:{port}"}}}}
admin: {{address: "127.0.0.1:{admin}"}}
upstreams:
  service:
    endpoints: ["{upstream}"]
    protocol: {protocol}
    tls: {{ca: ca.pem, client_certificate: {{certificate: edge.pem, key: edge.key}}}}
routes: {{all: {{match: {{path: /*}}, upstream: service}}}}
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Certificates(unittest.TestCase):
    """certificates"""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.authority("ca")
        for name, uri in [
            ("far", "spiffe://prod/ns/shop/sa/far"),
            ("edge", EDGE),
            ("web", WEB),
            ("stranger", "spiffe://test/ns/shop/sa/web"),
        ]:
            self.certificate(name, uri)
        self.authority("other")
        self.certificate("forger", WEB, "other")

    # What is needed for a test.

    def file(self, name):
        return os.path.join(self.folder, name)

    def read(self, name):
        with open(self.file(name), "rb") as file:
            return file.read()

    def openssl(self, *arguments):
        subprocess.run(
            ["openssl", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=BOUND
        )

    def request(self, name, *arguments):
        self.openssl(
            *["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            *["-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}", *arguments],
        )

    def authority(self, name):
        self.request(name, "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def certificate(self, name, uri, authority="ca"):
        self.request(
            name,
            *["-CA", f"{authority}.pem", "-CAkey", f"{authority}.key"],
            *["-addext", f"subjectAltName=DNS:localhost,IP:127.0.0.1,URI:{uri}"],
            *["-addext", "basicConstraints=critical,CA:FALSE"],
        )

    def service(self, credentials=None):
        """A service of grpcio that answers what it knows of its caller, a line for each thing."""

        def who(_, context):
            known = [f"{key}: {value}" for key, value in context.invocation_metadata()]
            names = context.auth_context().get("x509_subject_alternative_name", [])
            return "\n".join(known + [f"certificate: {name.decode()}" for name in names]).encode()

        server = grpc.server(futures.ThreadPoolExecutor(8))
        method = grpc.unary_unary_rpc_method_handler(who)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"Am": method}),)
        )
        if credentials:
            port = server.add_secure_port("127.0.0.1:0", credentials)
        else:
            port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.addCleanup(server.stop, 0)
        return port

    def start(self, *command):
        process = subprocess.Popen(
            command, cwd=self.folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        self.addCleanup(process.stdin.close)
        self.addCleanup(process.wait, BOUND)
        self.addCleanup(process.kill)

    def gateway(self, name, text, **values):
        port, admin = free_port(), free_port()
        with open(self.file(f"{name}.yaml"), "w", encoding="utf-8") as file:
            file.write(text.format(port=port, admin=admin, **values))
        self.start(os.environ["INTEROP_GATEWAY"], "run", "-c", f"{name}.yaml")

        def is_ready():
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=BOUND)
                return page.status == 200
            except OSError:
                return False

        eventually(f"{name}, ready", is_ready)
        return port

    def far(self, protocol="h2c", upstream=None):
        upstream = upstream or f"http://127.0.0.1:{self.service()}"
        return self.gateway("far", FAR, upstream=upstream, protocol=protocol)

    def near(self, port, protocol="h2"):
        upstream = f"https://localhost:{port}"
        return self.gateway("near", NEAR, upstream=upstream, protocol=protocol)

    def channel(self, port, own=None):
        options = [("grpc.enable_http_proxy", 0)]
        key, chain = (self.read(f"{own}.key"), self.read(f"{own}.pem")) if own else (None, None)
        credentials = grpc.ssl_channel_credentials(self.read("ca.pem"), key, chain)
        connection = grpc.secure_channel(f"localhost:{port}", credentials, options)
        self.addCleanup(connection.close)
        return connection

    def plain_channel(self, port):
        connection = grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)])
        self.addCleanup(connection.close)
        return connection

    def ask(self, connection, metadata=()):
        call = connection.unary_unary(f"/{SERVICE}/Am")
        return call(b"", metadata=metadata, timeout=BOUND).decode().split("\n")

    def told(self, lines):
        """The caller's names, in whatever field."""
        fields = ("x-consumer: ", "x-forwarded-client-cert: ", "certificate: ")
        found = [line for line in lines if line.startswith(fields)]
        return sorted(found, key=lambda line: [line.startswith(field) for field in fields], reverse=True)

    def assert_told(self, connection, name):
        consumer, certificate = self.told(self.ask(connection, FORGED))
        self.assertEqual(consumer, f"x-consumer: {name}")
        field = "^x-forwarded-client-cert: Hash=[0-9a-f]{64};Subject=[^;,]*;URI="
        self.assertRegex(certificate, f"{field}{name}$")

    # The tests.

    def test_two_gateways(self):
        """between grpcio and grpcio two gateways speak for their services; what a client forges arrives nowhere"""
        near = self.near(self.far())
        self.assert_told(self.plain_channel(near), EDGE)

    def test_grpcio_as_client(self):
        """a client of grpcio is who its certificate says, and without a good one it gets no connection"""
        far = self.far()
        self.assert_told(self.channel(far, "web"), WEB)
        denied = error_of(lambda: self.ask(self.channel(far, "stranger")))
        self.assertEqual(denied.code(), grpc.StatusCode.PERMISSION_DENIED)
        for own in (None, "forger"):
            error = error_of(lambda own=own: self.ask(self.channel(far, own)))
            self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE, own)

    def test_grpcio_as_service(self):
        """a service of grpcio that asks for a certificate gets the gateway's"""
        credentials = grpc.ssl_server_credentials(
            [(self.read("far.key"), self.read("far.pem"))], self.read("ca.pem"), True
        )
        near = self.near(self.service(credentials))
        names = self.told(self.ask(self.plain_channel(near)))
        self.assertIn(f"certificate: {EDGE}", names)

    def curl(self, port, *arguments):
        return subprocess.run(
            ["curl", "-s", "--noproxy", "*", "--cacert", "ca.pem", *arguments, f"https://localhost:{port}/"],
            cwd=self.folder,
            capture_output=True,
            timeout=BOUND,
            check=False,
        )

    def a_page(self):
        """openssl's own server, which demands a certificate and shows what it knows of its client."""
        port = free_port()
        self.start(
            *["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-www", "-quiet"],
            *["-cert", "far.pem", "-key", "far.key", "-CAfile", "ca.pem"],
            *["-Verify", "1", "-verify_return_error"],
        )

        def listens():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        eventually("openssl's server", listens)
        return port

    def test_curl(self):
        """curl with a certificate, over HTTP/1.1 and HTTP/2, reaches openssl's server through both gateways"""
        near = self.near(self.a_page(), "http1")
        far = self.far("http1", f"http://127.0.0.1:{near}")
        for version in ("--http1.1", "--http2"):
            page = self.curl(far, version, "--cert", "web.pem", "--key", "web.key")
            self.assertEqual(page.returncode, 0, page)
            self.assertIn(b"Client certificate", page.stdout)
            self.assertIn(b"CN=edge", page.stdout.replace(b" = ", b"="))
        self.assertNotEqual(self.curl(far).returncode, 0)
        forged = self.curl(far, "--cert", "forger.pem", "--key", "forger.key")
        self.assertNotEqual(forged.returncode, 0)

    def test_openssl(self):
        """openssl as client: both versions of TLS; a session is taken up again as the same caller"""
        far = self.far()
        for version in ("-tls1_2", "-tls1_3"):
            arguments = ["-connect", f"localhost:{far}", version, "-CAfile", "ca.pem", "-verify_return_error"]
            own = ["-cert", "web.pem", "-key", "web.key", "-sess_out", f"session{version}"]
            request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
            for more in ([], ["-sess_in", f"session{version}"]):
                run = subprocess.run(
                    ["openssl", "s_client", *arguments, *own, *more, "-ign_eof"],
                    cwd=self.folder,
                    input=request,
                    capture_output=True,
                    timeout=BOUND,
                    check=False,
                )
                self.assertIn(b"Verify return code: 0 (ok)", run.stdout)
                # No call of gRPC; but a caller who is known: grpcio refuses the method.
                self.assertIn(b"HTTP/1.1 ", run.stdout)
                self.assertNotIn(b"HTTP/1.1 401", run.stdout)
                self.assertEqual(b"Reused, " in run.stdout, bool(more), run.stdout)


if __name__ == "__main__":
    unittest.main()

"""Certificates on both sides: grpcio, curl and openssl as clients and as services, and two gateways in a row."""

import json
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


SIDECAR = os.path.join(os.path.dirname(__file__), "../../conf/sidecar.yaml")


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

    def certificate(self, file, uri, authority="ca", name="localhost"):
        self.request(
            file,
            *["-CA", f"{authority}.pem", "-CAkey", f"{authority}.key"],
            *["-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1,URI:{uri}"],
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

    def start(self, *command, environment=None):
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=os.environ | (environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        self.addCleanup(process.stdin.close)
        self.addCleanup(process.wait, BOUND)
        self.addCleanup(process.kill)

    def gateway(self, name, text, **values):
        port, admin = free_port(), free_port()
        with open(self.file(f"{name}.yaml"), "w", encoding="utf-8") as file:
            file.write(text.format(port=port, admin=admin, **values))
        self.start(os.environ["INTEROP_GATEWAY"], "run", "-c", f"{name}.yaml")
        self.until_ready(name, admin)
        return port

    def until_ready(self, name, admin):
        def is_ready():
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=BOUND)
                return page.status == 200
            except OSError:
                return False

        eventually(f"{name}, ready", is_ready)

    def sidecar(self, name, service, targets=""):
        """`conf/sidecar.yaml` beside a service, called by `name`: the ports for both directions, and the admin's."""
        inbound, outbound, admin = free_port(), free_port(), free_port()
        folder = self.file(f"{name}-tls")
        os.mkdir(folder)
        for file, place in ((f"{name}.pem", "tls.crt"), (f"{name}.key", "tls.key"), ("ca.pem", "ca.crt")):
            os.symlink(self.file(file), os.path.join(folder, place))
        environment = {
            "SERVICE_URL": f"http://127.0.0.1:{service}",
            "SIDECAR_TARGETS": targets,
            "SIDECAR_NETWORKS": "127.0.0.0/8",
            "SIDECAR_CERTIFICATES": folder,
            "SIDECAR_INBOUND": f"127.0.0.1:{inbound}",
            "SIDECAR_OUTBOUND": f"127.0.0.1:{outbound}",
            "ADMIN_ADDRESS": f"127.0.0.1:{admin}",
        }
        self.start(os.environ["INTEROP_GATEWAY"], "run", "-c", SIDECAR, environment=environment)
        self.until_ready(name, admin)
        return inbound, outbound, admin

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

    def plain_channel(self, port, host=None):
        options = [("grpc.enable_http_proxy", 0)]
        options += [("grpc.default_authority", host)] if host else []
        connection = grpc.insecure_channel(f"127.0.0.1:{port}", options)
        self.addCleanup(connection.close)
        return connection

    def ask(self, connection, metadata=()):
        call = connection.unary_unary(f"/{SERVICE}/Am")
        return call(b"", metadata=metadata, timeout=BOUND).decode().split("\n")

    def told(self, lines):
        """The caller's names, in whatever field."""
        fields = ("x-consumer: ", "x-source-service: ", "x-forwarded-client-cert: ", "certificate: ")
        found = [line for line in lines if line.startswith(fields)]
        return sorted(found, key=lambda line: [line.startswith(field) for field in fields], reverse=True)

    def assert_told(self, connection, name, field="x-consumer"):
        forged = [(field, "root"), ("x-forwarded-client-cert", "URI=spiffe://prod/ns/shop/sa/root")]
        consumer, certificate = self.told(self.ask(connection, forged))
        self.assertEqual(consumer, f"{field}: {name}")
        field = "^x-forwarded-client-cert: Hash=[0-9a-f]{64};Subject=[^;,]*;URI="
        self.assertRegex(certificate, f"{field}{name}$")

    # The tests.

    def test_two_gateways(self):
        """between grpcio and grpcio two gateways speak for their services; what a client forges arrives nowhere"""
        near = self.near(self.far())
        self.assert_told(self.plain_channel(near), EDGE)

    def test_two_sidecars(self):
        """conf/sidecar.yaml beside two services: grpcio and curl call by name, and arrive as who they are"""
        self.certificate("far", "spiffe://prod/ns/shop/sa/far", name="callee")
        service = self.service()
        inbound, _, _ = self.sidecar("far", service)
        _, outbound, admin = self.sidecar("web", free_port(), "callee")
        place = f"http://127.0.0.1:{admin}/upstreams/callee/endpoints/one"
        body = json.dumps({"address": f"127.0.0.1:{inbound}"}).encode()
        put = urllib.request.Request(place, body, {"Content-Type": "application/json"}, method="PUT")
        self.assertIn(urllib.request.urlopen(put, timeout=BOUND).status, (200, 201, 204))
        self.assert_told(self.plain_channel(outbound, "callee"), WEB, "x-source-service")
        other = error_of(lambda: self.ask(self.plain_channel(outbound, "stock")))
        self.assertEqual(other.code(), grpc.StatusCode.UNIMPLEMENTED)
        # The service speaks no HTTP/1, which is what curl is answered: it has been asked.
        for host, status in (("callee", "502"), ("callee.internal", "502"), ("stock", "404")):
            asked = ["curl", "-s", "--noproxy", "*", "-o", os.devnull, "-w", "%{http_code}", "-H", f"Host: {host}"]
            asked = subprocess.run(
                [*asked, f"http://127.0.0.1:{outbound}/"], capture_output=True, timeout=BOUND, check=True
            )
            self.assertEqual(asked.stdout.decode(), status, host)

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

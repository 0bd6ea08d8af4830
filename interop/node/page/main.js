// A front end of the GatewayService: a form, and what it was answered. The address and the token
// come from the fragment, as `#gateway=…&token=…&protocol=…`.

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";

import { GatewayService } from "../gen/gateway/v1/gateway_pb.js";

const TRANSPORTS = {
  "connect-json": (baseUrl) => createConnectTransport({ baseUrl }),
  "connect-binary": (baseUrl) => createConnectTransport({ baseUrl, useBinaryFormat: true }),
  "grpc-web": (baseUrl) => createGrpcWebTransport({ baseUrl }),
};

const form = document.getElementById("invoke");
const answer = document.getElementById("answer");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const settings = new URLSearchParams(location.hash.slice(1));
  const client = createClient(
    GatewayService,
    TRANSPORTS[settings.get("protocol")](settings.get("gateway")),
  );
  const headers = { "Idempotency-Key": crypto.randomUUID() };
  if (settings.get("token")) headers.Authorization = `Bearer ${settings.get("token")}`;
  answer.textContent = "";
  try {
    const name = new FormData(form).get("name");
    const { message } = await client.invokeCustom({ name }, { headers });
    answer.textContent = message;
  } catch (error) {
    const { code, rawMessage } = ConnectError.from(error);
    answer.textContent = `${Code[code]}: ${rawMessage}`;
  }
});

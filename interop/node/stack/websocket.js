// A WebSocket echo; `close CODE REASON` closes from this side.

import { WebSocketServer } from "ws";

export function websocketEcho() {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1", maxPayload: 8 << 20 });
  server.on("connection", (socket) => {
    socket.on("error", () => {});
    socket.on("message", (data, isBinary) => {
      const close = isBinary ? null : /^close (\d+) (.*)$/.exec(data.toString());
      if (close) return socket.close(Number(close[1]), close[2]);
      return socket.send(data, { binary: isBinary });
    });
  });
  return new Promise((resolve) => server.once("listening", () => resolve(server)));
}

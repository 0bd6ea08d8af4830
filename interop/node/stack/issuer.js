// Who signs the tokens: one RSA key, its public half as a JWKS.

import { createHash, createSign, generateKeyPairSync } from "node:crypto";

const VALID_FOR_SECONDS = 3600;

export function makeIssuer() {
  const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const jwk = publicKey.export({ format: "jwk" });
  const kid = createHash("sha256").update(jwk.n).digest("hex").slice(0, 16);
  return {
    jwks: JSON.stringify({ keys: [{ ...jwk, kid, alg: "RS256", use: "sig" }] }),
    token(subject) {
      const now = Math.floor(Date.now() / 1000);
      const claims = { iss: "auth-service", sub: subject, iat: now, exp: now + VALID_FOR_SECONDS };
      const text = `${encode({ alg: "RS256", typ: "JWT", kid })}.${encode(claims)}`;
      const signature = createSign("RSA-SHA256").update(text).sign(privateKey, "base64url");
      return `${text}.${signature}`;
    },
  };
}

function encode(value) {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

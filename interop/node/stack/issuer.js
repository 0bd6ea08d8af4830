// Who signs the tokens: one RSA key, its public half as a JWKS.

import { createHash, createSign, createVerify, generateKeyPairSync } from "node:crypto";

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
    /** Whose token it is; `undefined` if it is not one of ours, or has expired. */
    subject(token) {
      const [head, body, signature] = token?.split(".") ?? [];
      if (!signature) return undefined;
      const signed = createVerify("RSA-SHA256").update(`${head}.${body}`);
      if (!signed.verify(publicKey, signature, "base64url")) return undefined;
      const { sub, exp } = JSON.parse(Buffer.from(body, "base64url"));
      return exp > Date.now() / 1000 ? sub : undefined;
    },
  };
}

function encode(value) {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

// One suite: a process that writes a line of JSON for each of its tests.

import { spawn } from "node:child_process";
import { existsSync, openSync, readFileSync, rmSync } from "node:fs";

import { end } from "./process.js";

/** Runs a suite to its end, or to its bound; resolves to its tests. */
export async function runSuite({ name, command, args, cwd, env }, { folder, boundMs, onStart }) {
  const results = `${folder}/${name}.jsonl`;
  const log = `${folder}/${name}.log`;
  rmSync(results, { force: true });
  const output = openSync(log, "w");
  const child = spawn(command, args(results), {
    cwd,
    env: { ...process.env, ...env, INTEROP_RESULTS: results },
    stdio: ["ignore", output, output],
  });
  onStart(child);
  let late = false;
  const bound = setTimeout(() => {
    late = true;
    end(child);
  }, boundMs);
  const code = await new Promise((resolve) => {
    child.once("exit", resolve);
    child.once("error", () => resolve(undefined));
  });
  clearTimeout(bound);
  const tests = read(results);
  const failed = tests.some(({ failure }) => failure);
  if (late) tests.push(broken(`not over after ${boundMs / 1000} s; see ${log}`));
  else if (code !== 0 && !failed) tests.push(broken(`ended with ${code}; see ${log}`));
  else if (tests.length === 0) tests.push(broken(`ran no test; see ${log}`));
  return tests;
}

function read(results) {
  if (!existsSync(results)) return [];
  const lines = readFileSync(results, "utf8").split("\n").filter(Boolean);
  return lines.map((line) => JSON.parse(line));
}

function broken(failure) {
  return { group: "", test: "the suite itself", failure };
}

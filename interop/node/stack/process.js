// A child process: started with its output kept or read, ended by its own id and no other's.

import { spawn } from "node:child_process";
import { openSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";

const ENDS_WITHIN_MS = 5000;

/** Starts a process whose output goes to the file `log`. */
export function start(command, args, { env = {}, cwd, log }) {
  const file = openSync(log, "w");
  return spawn(command, args, {
    cwd,
    env: { ...process.env, ...env },
    stdio: ["pipe", file, file],
  });
}

/** Starts a process that says one line of JSON once it is ready; resolves to both. */
export async function startAnnounced(command, args, { env = {}, cwd, log, withinMs = 60_000 }) {
  const file = openSync(log, "w");
  const child = spawn(command, args, {
    cwd,
    env: { ...process.env, ...env },
    stdio: ["pipe", "pipe", file],
  });
  const line = new Promise((resolve, reject) => {
    createInterface(child.stdout).once("line", resolve);
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`${command} ended with ${code}; see ${log}`)));
    setTimeout(() => reject(new Error(`${command} is not ready; see ${log}`)), withinMs).unref();
  });
  try {
    return { child, announced: JSON.parse(await line) };
  } catch (error) {
    await end(child);
    throw error;
  }
}

/** Ends a process that was started here: politely, then not. */
export async function end(child) {
  if (hasEnded(child)) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await Promise.race([ended, pause(ENDS_WITHIN_MS, undefined, { ref: false })]);
  if (!hasEnded(child)) child.kill("SIGKILL");
}

export function hasEnded(child) {
  return child.exitCode !== null || child.signalCode !== null;
}

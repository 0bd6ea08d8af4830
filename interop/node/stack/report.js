// A reporter of node's test runner: one line of JSON per test, for run.js to count.

export default async function* report(events) {
  const groups = [];
  for await (const { type, data } of events) {
    if (type === "test:start") {
      groups.length = data.nesting;
      groups.push(data.name);
    }
    if (type !== "test:pass" && type !== "test:fail") continue;
    const failure = type === "test:fail" ? explain(data.details.error) : null;
    const isGroup = data.details.type === "suite";
    // A group fails because a test in it has, or by itself.
    if (isGroup && data.details.error?.failureType !== "hookFailed") continue;
    const group = groups.slice(0, data.nesting).join(", ");
    yield `${JSON.stringify({ group, test: data.name, failure })}\n`;
  }
}

function explain(error) {
  const cause = error?.cause ?? error;
  return cause?.stack ?? String(cause);
}

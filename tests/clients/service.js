import assert from "node:assert/strict";

const { TALLYHOUSE_URL = "", TALLYHOUSE_TOKEN = "" } = process.env;
const authorization = { authorization: `Bearer ${TALLYHOUSE_TOKEN}` };
/** Longest wait for what was acknowledged to be counted, in milliseconds. */
const COUNTED_MS_MAX = 30_000;

/** The text of a new write key. */
export async function createWriteKey(name) {
  const answer = await fetch(`${TALLYHOUSE_URL}/api/v1/write-keys`, {
    method: "POST",
    headers: { ...authorization, "content-type": "application/json" },
    body: JSON.stringify({ name }),
  });
  return (await answer.json()).text;
}

/** The events of a type, once everything acknowledged until now is counted; fails unless there are so many. */
export async function eventsOf(type, count) {
  const now = Date.now();
  const [start, end] = [now, now + 86_400_000].map((time) => new Date(time).toISOString().slice(0, 10));
  const summary = `/api/v1/metrics/summary?start_date=${start}&end_date=${end}&metrics=events`;
  while (Date.parse((await get(summary)).headers.get("x-watermark")) < now) {
    assert.ok(Date.now() - now < COUNTED_MS_MAX, "what was acknowledged is not counted in time");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const { events } = await (await get(`/api/v1/events?event_type=${type}&limit=100`)).json();
  assert.equal(events.length, count, type);
  return events;
}

async function get(path) {
  const answer = await fetch(`${TALLYHOUSE_URL}${path}`, { headers: authorization });
  assert.equal(answer.status, 200, path);
  return answer;
}

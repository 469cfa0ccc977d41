import "fake-indexeddb/auto";
import { describe, expect, test } from "vitest";
import type { Pause } from "../src/queue/backend.js";
import { openIndexedDb } from "../src/queue/indexed-db.js";
import { NO_PAUSE, Queue, type QueueBounds } from "../src/queue/queue.js";
import { type Batch, partId, type QueueRecord } from "../src/queue/record.js";
import { orderedIds, uuid7 } from "../src/uuid.js";

const next = orderedIds();
let opened = 0;

const single = (event: string, bytes = 10): QueueRecord => ({ id: next(1), events: [event], bytes, badAnswers: 0 });
const batch = (...events: string[]): Batch => {
  return { id: next(1), key: `key-${events[0]}`, events, bytes: 10 * events.length, badAnswers: 0 };
};

const ROOM: QueueBounds = { eventsMax: 100, bytesMax: 10_000, whenFull: "drop-oldest" };
const ANY = { eventsMax: 100, bytesMax: 10_000 };

/** All events, by taking batch after batch. */
async function drain(store: Queue): Promise<string[]> {
  const events: string[] = [];
  for (let key = 0; ; key++) {
    const head = await store.head(ANY, `drained-${key}`);
    if (head === undefined) return events;
    events.push(...head.events);
    await store.replace(head, []);
  }
}

const queueOf = (name: string | undefined, bounds: QueueBounds): Queue => {
  const fail = (cause: unknown) => {
    throw cause;
  };
  const open = name === undefined ? undefined : () => openIndexedDb(name);
  return new Queue({ open, bounds, survivors: () => [], onFailure: fail });
};

describe.each([
  ["in memory", (bounds = ROOM) => queueOf(undefined, bounds)],
  ["in IndexedDB", (bounds = ROOM) => queueOf(`queue-${opened++}`, bounds)],
] as [string, (bounds?: QueueBounds) => Queue][])("the queue %s", (_, open) => {
  test("makes the first single events one batch, which then stays as it is", async () => {
    const store = open();
    await store.add([single("a"), single("b")]);
    const head = await store.head(ANY, "k1");
    expect(head).toMatchObject({ key: "k1", events: ["a", "b"], bytes: 20 });
    await store.add([single("c")]);
    expect(await store.head(ANY, "k2")).toEqual(head);
    await store.replace(head as Batch, []);
    expect(await store.head(ANY, "k3")).toMatchObject({ key: "k3", events: ["c"] });
  });

  test("keeps to the bounds of a batch, but sends a single event of any size", async () => {
    const store = open();
    await store.add([single("a"), single("b"), single("c"), single("d", 500), single("e")]);
    expect((await store.head({ eventsMax: 2, bytesMax: 100 }, "k"))?.events).toEqual(["a", "b"]);
    const other = open();
    await other.add([single("d", 500), single("e")]);
    expect((await other.head({ eventsMax: 5, bytesMax: 100 }, "k"))?.events).toEqual(["d"]);
  });

  test("sends in order, whatever came as a batch and whatever singly", async () => {
    const store = open();
    await store.add([single("a"), batch("b", "c"), single("d"), single("e"), batch("f")]);
    expect((await store.head(ANY, "k"))?.events).toEqual(["a"]);
    expect(await drain(store)).toEqual(["a", "b", "c", "d", "e", "f"]);
  });

  test("drops the oldest when it is full, but not the batch that may be on its way", async () => {
    const store = open({ eventsMax: 4, bytesMax: 1_000, whenFull: "drop-oldest" });
    await store.add([single("a"), single("b")]);
    await store.head({ eventsMax: 1, bytesMax: 100 }, "k");
    const dropped = await store.add(["c", "d", "e", "f"].map((event) => single(event)));
    expect(dropped.flatMap((record) => record.events)).toEqual(["b", "c"]);
    expect(await drain(store)).toEqual(["a", "d", "e", "f"]);
  });

  test("drops what comes when it is full, if so set", async () => {
    const store = open({ eventsMax: 100, bytesMax: 25, whenFull: "drop-newest" });
    expect(await store.add([single("a"), single("b")])).toEqual([]);
    const dropped = await store.add([single("c"), single("d", 5)]);
    expect(dropped.flatMap((record) => record.events)).toEqual(["c"]);
    expect(await drain(store)).toEqual(["a", "b", "d"]);
  });

  test("has room again for what was taken out", async () => {
    const store = open({ eventsMax: 2, bytesMax: 1_000, whenFull: "drop-newest" });
    for (let round = 0; round < 5; round++) {
      expect(await store.add([single("a"), single("b")])).toEqual([]);
      expect(await store.add([single("c")])).toHaveLength(1);
      expect(await drain(store)).toEqual(["a", "b"]);
    }
  });

  test("puts the parts of a batch where it was, however often it is split", async () => {
    const store = open();
    const whole = batch(..."abcdefgh");
    const partsOf = ({ id, key, events }: Batch): [Batch, Batch] => {
      const middle = events.length / 2;
      const [first, second] = [events.slice(0, middle), events.slice(middle)];
      const part = { key, bytes: 10 * middle, badAnswers: 0 };
      return [
        { ...part, id, events: first },
        { ...part, id: partId(id, middle), events: second },
      ];
    };
    await store.add([whole, single("i")]);
    const [first, second] = partsOf(whole);
    await store.replace(whole, [first, second]);
    await store.replace(second, partsOf(second));
    await store.replace(first, partsOf(first));
    expect((await store.head(ANY, "k"))?.events).toEqual(["a", "b"]);
    expect(await drain(store)).toEqual([..."abcdefghi"]);
  });

  test("freezes single events only while all of them are there", async () => {
    const store = open();
    const [a, b, c] = [single("a"), single("b"), single("c")];
    await store.add([a, b, c]);
    const frozen: Batch = { ...a, key: "k", events: ["a", "b"], bytes: 20 };
    await store.freeze([a, b], frozen);
    expect(await store.head(ANY, "other")).toEqual(frozen);
    await store.freeze([b, c], { ...b, key: "l", events: ["b", "c"] });
    expect(await drain(store)).toEqual(["a", "b", "c"]);
  });

  test("leaves a batch alone that is gone, or that another tab has put in its place", async () => {
    const store = open();
    await store.replace(batch("nobody"), [single("a")]);
    const [a, b] = [single("a"), single("b")];
    await store.add([a, b]);
    const others = await store.head(ANY, "other tab's");
    await store.replace({ ...a, key: "k" }, []);
    expect(await store.head(ANY, "k")).toEqual(others);
    expect(await drain(store)).toEqual(["a", "b"]);
  });

  test("knows the newest record also after the clock was set back", async () => {
    const store = open();
    const [later, earlier] = [single("a"), { ...single("b"), id: uuid7(0, 0) }];
    await store.add([later]);
    await store.add([earlier]);
    expect((await store.state()).lastId).toBe(later.id);
  });

  test("keeps the pause, and forgets everything when it is cleared", async () => {
    const store = open();
    expect((await store.state()).pause).toEqual(NO_PAUSE);
    const pause: Pause = { until: 5, failures: 2, isOrdered: true };
    await store.state(pause);
    expect((await store.state()).pause).toEqual(pause);
    await store.add([single("a")]);
    await store.clear();
    expect((await store.state()).pause).toEqual(NO_PAUSE);
    expect(await drain(store)).toEqual([]);
  });
});

test("what is in IndexedDB is there again when it is opened again, and for another tab", async () => {
  const store = queueOf("reopened", ROOM);
  await store.add([batch("a", "b"), single("c")]);
  store.close();
  const [one, other] = [queueOf("reopened", ROOM), queueOf("reopened", ROOM)];
  expect(await one.head(ANY, "k")).toMatchObject({ key: "key-a", events: ["a", "b"] });
  expect(await other.head(ANY, "l")).toMatchObject({ key: "key-a", events: ["a", "b"] });
  expect(await drain(other)).toEqual(["a", "b", "c"]);
});

import { vi } from "vitest";

/** A page as far as the SDK sees it. */
export class FakePage {
  visibilityState: "visible" | "hidden" = "visible";
  readonly #window = new EventTarget();
  readonly #document = new EventTarget();
  readonly navigator: { onLine: boolean; locks?: LockManager } = { onLine: true };

  /** Puts it in place of the globals. */
  install({ locks }: { locks?: LockManager } = {}): this {
    const document = Object.assign(this.#document, {});
    Object.defineProperty(document, "visibilityState", { get: () => this.visibilityState });
    if (locks) this.navigator.locks = locks;
    const values = new Map<string, string>();
    vi.stubGlobal("document", document);
    vi.stubGlobal("navigator", this.navigator);
    vi.stubGlobal("addEventListener", this.#window.addEventListener.bind(this.#window));
    vi.stubGlobal("removeEventListener", this.#window.removeEventListener.bind(this.#window));
    vi.stubGlobal("localStorage", {
      getItem: (key: string) => values.get(key) ?? null,
      setItem: (key: string, value: string) => values.set(key, value),
      removeItem: (key: string) => values.delete(key),
    });
    return this;
  }

  hide(): void {
    this.visibilityState = "hidden";
    this.#document.dispatchEvent(new Event("visibilitychange"));
  }

  show(): void {
    this.visibilityState = "visible";
    this.#document.dispatchEvent(new Event("visibilitychange"));
  }

  /** The last that a page hears. */
  close(): void {
    this.hide();
    this.#window.dispatchEvent(new Event("pagehide"));
  }

  goOffline(): void {
    this.navigator.onLine = false;
  }

  goOnline(): void {
    this.navigator.onLine = true;
    this.#window.dispatchEvent(new Event("online"));
  }
}

/** Web Locks for tabs that share one process. */
export class FakeLocks {
  /** How many held a lock of one name at most, at a time. */
  heldMost = 0;
  #held = 0;
  #queue: Promise<unknown> = Promise.resolve();

  request(_name: string, task: () => Promise<unknown>): Promise<unknown> {
    const run = this.#queue.then(async () => {
      this.heldMost = Math.max(this.heldMost, ++this.#held);
      try {
        return await task();
      } finally {
        this.#held--;
      }
    });
    this.#queue = run.catch(() => {});
    return run;
  }
}

/** Lets everything run that needs no time to pass. */
export async function settle(turns = 60): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
}

const STEP_MS = 250;

/** Lets time pass, for timers that are fake. */
export async function pass(ms: number): Promise<void> {
  await settle();
  for (let left = ms; left > 0; left -= STEP_MS) {
    await vi.advanceTimersByTimeAsync(Math.min(left, STEP_MS));
    await settle();
  }
}

/** Fake timers, but for those that IndexedDB's double and {@link settle} run on. */
export function useFakeTime(now = Date.parse("2026-11-27T12:00:00Z")): void {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"], now });
}

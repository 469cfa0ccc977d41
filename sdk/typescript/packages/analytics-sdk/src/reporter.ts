import type { AnalyticsError } from "./error.js";
import { readEvent, type TrackedEvent } from "./event.js";
import type { DropReason, Settings, VerdictReport } from "./settings.js";

/** Calls the page's callbacks. What they throw goes to the console and no further. */
export class Reporter {
  constructor(private readonly settings: Pick<Settings, "onError" | "onVerdicts" | "onDrop">) {}

  error(error: AnalyticsError): void {
    call(this.settings.onError, error);
  }

  verdicts(report: VerdictReport): void {
    call(this.settings.onVerdicts, report);
  }

  /** Tells of events, given as JSON. */
  dropped(reason: DropReason, events: string[]): void {
    this.droppedPayloads(reason, events.map(readEvent));
  }

  droppedPayloads(reason: DropReason, events: Partial<TrackedEvent>[]): void {
    if (events.length > 0) call(this.settings.onDrop, { reason, events });
  }
}

function call<T>(callback: ((value: T) => void) | undefined, value: T): void {
  try {
    callback?.(value);
  } catch (error) {
    console.error(error);
  }
}

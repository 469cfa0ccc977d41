/** What a {@link PageLifecycle} calls. */
export interface PageListener {
  /** The page is hidden or about to end, and there may be no later moment. */
  hidden(): void;
  /** The page is shown again. */
  shown(): void;
  /** The browser says that it is online again. */
  online(): void;
}

/** Listens to the page's life. Outside of a page it hears nothing. */
export class PageLifecycle {
  #isUnloading = false;
  readonly #handlers: [EventTarget | undefined, string, () => void][];

  constructor(listener: PageListener) {
    const page = globalThis as unknown as EventTarget;
    this.#handlers = [
      [page, "online", () => listener.online()],
      [
        page,
        "pagehide",
        () => {
          this.#isUnloading = true;
          listener.hidden();
        },
      ],
      [
        page,
        "pageshow",
        () => {
          this.#isUnloading = false;
          listener.shown();
        },
      ],
      [
        globalThis.document,
        "visibilitychange",
        () => {
          const isVisible = document.visibilityState === "visible" && !this.#isUnloading;
          if (isVisible) listener.shown();
          else listener.hidden();
        },
      ],
    ];
  }

  listen(): void {
    for (const [target, event, handler] of this.#handlers) target?.addEventListener?.(event, handler);
  }

  unlisten(): void {
    for (const [target, event, handler] of this.#handlers) target?.removeEventListener?.(event, handler);
  }
}

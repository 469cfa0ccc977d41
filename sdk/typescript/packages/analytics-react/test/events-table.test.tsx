// @vitest-environment jsdom

import { QueryClient } from "@tanstack/react-query";
import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/react";
import axe from "axe-core";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { AnalyticsProvider, EventsTable, type EventsTableProps } from "../src/index.js";
import { answering, json, pagesOf } from "./support.js";

beforeEach(() => {
  // jsdom lays nothing out.
  vi.spyOn(Element.prototype, "clientHeight", "get").mockReturnValue(400);
  vi.spyOn(Element.prototype, "clientWidth", "get").mockReturnValue(800);
  vi.spyOn(HTMLElement.prototype, "offsetHeight", "get").mockReturnValue(400);
  vi.spyOn(HTMLElement.prototype, "offsetWidth", "get").mockReturnValue(800);
  vi.spyOn(Element.prototype, "scrollHeight", "get").mockReturnValue(100_000);
  Element.prototype.scrollTo = function (this: Element, options?: ScrollToOptions | number) {
    if (typeof options === "object") this.scrollTop = options.top ?? 0;
    fireEvent.scroll(this);
  } as typeof Element.prototype.scrollTo;
});

afterEach(cleanup);

function show(answer: ReturnType<typeof answering>, props: EventsTableProps = {}) {
  return render(
    <AnalyticsProvider config={answer.config}>
      <EventsTable {...props} />
    </AnalyticsProvider>,
  );
}

const rowOf = (id: number) => document.querySelector<HTMLElement>(`[data-index="${id}"]`);

async function expectAccessible(container: Element): Promise<void> {
  // jsdom cannot tell colours; the browser's test does.
  const { violations } = await axe.run(container, {
    rules: { "color-contrast": { enabled: false }, region: { enabled: false } },
  });
  expect(violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join()}`)).toEqual([]);
}

test("says that it loads, shows what came, and passes the filters on", async () => {
  const answer = answering(pagesOf(3));
  const { container } = show(answer, { eventType: "click", pageSize: 20, orgId: "acme", className: "mine" });
  expect(screen.getByRole("status").textContent).toBe("Loading events");
  await waitFor(() => expect(screen.getAllByRole("row")).toHaveLength(4));
  expect(screen.getByRole("status").textContent).toBe("3 events loaded, these are all");
  expect(screen.getByRole("grid").getAttribute("aria-rowcount")).toBe("4");
  expect(rowOf(1)?.textContent).toContain('{"n":1}');
  expect(answer.calls.mock.calls[0]?.[0].search).toBe("?org_id=acme&event_type=click&limit=20");
  expect(container.querySelector("section.mine")).not.toBeNull();
  await expectAccessible(container);
});

test("says that there is nothing", async () => {
  const { container } = show(answering(pagesOf(0)));
  await screen.findByText("There are no events yet.");
  await expectAccessible(container);
});

test("shows events without properties and without a time", async () => {
  const answer = answering(() => json(200, { events: [{ event_id: "e", event_type: "click" }], next_cursor: null }));
  show(answer);
  await waitFor(() => expect(rowOf(0)?.textContent).toBe("click"));
});

test("goes on from the first row when a shorter list takes the place of a longer one", async () => {
  const answer = answering((url, init) => pagesOf(url.searchParams.get("event_type") === "rare" ? 2 : 60)(url, init));
  const table = (eventType: string) => (
    <AnalyticsProvider config={answer.config}>
      <EventsTable eventType={eventType} pageSize={100} />
    </AnalyticsProvider>
  );
  const { rerender } = render(table("rare"));
  await waitFor(() => expect(screen.getAllByRole("row")).toHaveLength(3));
  rerender(table("common"));
  await waitFor(() => expect(rowOf(5)).not.toBeNull());
  fireEvent.keyDown(rowOf(0) as HTMLElement, { key: "End" });
  await waitFor(() => expect(rowOf(59)).not.toBeNull());
  // From the cache, without a moment in which it is loaded.
  rerender(table("rare"));
  await waitFor(() => expect(screen.getAllByRole("row")).toHaveLength(3));
  expect(rowOf(0)?.tabIndex).toBe(0);
});

test("keeps a row in the tab order when fewer events are left", async () => {
  let count = 60;
  const answer = answering((url, init) => pagesOf(count)(url, init));
  const queryClient = new QueryClient();
  render(
    <AnalyticsProvider config={answer.config} queryClient={queryClient}>
      <EventsTable pageSize={100} />
    </AnalyticsProvider>,
  );
  await waitFor(() => expect(rowOf(0)).not.toBeNull());
  fireEvent.keyDown(rowOf(0) as HTMLElement, { key: "End" });
  await waitFor(() => expect(rowOf(59)).not.toBeNull());
  count = 2;
  await queryClient.refetchQueries({ queryKey: ["tallyhouse", "events"] });
  await waitFor(() => expect(screen.getAllByRole("row")).toHaveLength(3));
  expect(rowOf(1)?.tabIndex).toBe(0);
});

test("says what went wrong, and tries again", async () => {
  const answer = answering(pagesOf(2));
  answer.calls.mockImplementationOnce(() =>
    json(401, { error: { code: "UNAUTHENTICATED", message: "there is no good token" } }),
  );
  const { container } = show(answer);
  const alert = await screen.findByRole("alert");
  expect(alert.textContent).toContain("there is no good token (UNAUTHENTICATED)");
  await expectAccessible(container);
  fireEvent.click(screen.getByRole("button", { name: "Try again" }));
  await waitFor(() => expect(screen.getAllByRole("row")).toHaveLength(3));
  expect(screen.queryByRole("alert")).toBeNull();
});

test("renders only what is seen of many, and fetches more near the end", async () => {
  const answer = answering(pagesOf(1_000));
  show(answer, { pageSize: 100 });
  await waitFor(() => expect(rowOf(0)).not.toBeNull());
  expect(screen.getAllByRole("row").length).toBeLessThan(40);
  expect(screen.getByRole("grid").getAttribute("aria-rowcount")).toBe("-1");
  expect(answer.calls).toHaveBeenCalledTimes(1);
  fireEvent.keyDown(rowOf(0) as HTMLElement, { key: "End" });
  await waitFor(() => expect(answer.calls).toHaveBeenCalledTimes(2));
  await waitFor(() => expect(screen.getByRole("status").textContent).toBe("200 events loaded, more follow"));
  expect(screen.getAllByRole("row").length).toBeLessThan(40);
});

test("a page that fails leaves the others, and is asked for again", async () => {
  const answer = answering(pagesOf(100));
  show(answer, { pageSize: 50 });
  await waitFor(() => expect(rowOf(0)).not.toBeNull());
  answer.calls.mockImplementationOnce(() => json(403, { error: { code: "PERMISSION_DENIED", message: "no" } }));
  fireEvent.keyDown(rowOf(0) as HTMLElement, { key: "End" });
  await screen.findByRole("alert");
  expect(screen.getAllByRole("row").length).toBeGreaterThan(5);
  fireEvent.click(screen.getByRole("button", { name: "Try again" }));
  await waitFor(() => expect(screen.getByRole("status").textContent).toBe("100 events loaded, these are all"));
});

test("is used by the keyboard: one stop, arrows among rows, Enter and Space to choose", async () => {
  const onRowClick = vi.fn();
  show(answering(pagesOf(30)), { onRowClick });
  await waitFor(() => expect(rowOf(0)).not.toBeNull());
  const stops = () => [...document.querySelectorAll('[role="row"][tabindex="0"]')];
  expect(stops()).toEqual([rowOf(0)]);
  const press = (key: string) => fireEvent.keyDown(document.activeElement as Element, { key });
  rowOf(0)?.focus();
  press("ArrowUp");
  expect(document.activeElement).toBe(rowOf(0));
  press("ArrowDown");
  press("ArrowDown");
  await waitFor(() => expect(document.activeElement).toBe(rowOf(2)));
  expect(stops()).toEqual([rowOf(2)]);
  press("Enter");
  press(" ");
  press("Home");
  await waitFor(() => expect(document.activeElement).toBe(rowOf(0)));
  fireEvent.click(rowOf(4) as HTMLElement);
  expect(onRowClick.mock.calls.map(([event]) => event.eventId)).toEqual(["e-2", "e-2", "e-4"]);
  expect(stops()).toEqual([rowOf(4)]);
});

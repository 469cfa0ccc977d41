// @vitest-environment jsdom
import type { AnalyticsClient } from "@tallyhouse/analytics-sdk";
import { QueryClient } from "@tanstack/react-query";
import { cleanup, render, renderHook, waitFor } from "@testing-library/react";
import { type ReactNode, useEffect } from "react";
import { afterEach, expect, test, vi } from "vitest";
import { AnalyticsProvider, useAnalyticsClient, useEvents, useMetrics, useTrackEvent } from "../src/index.js";
import { answering, json, pagesOf } from "./support.js";

afterEach(cleanup);

type Config = ReturnType<typeof answering>["config"];

const within = (config: Config) => {
  return ({ children }: { children: ReactNode }) => <AnalyticsProvider config={config}>{children}</AnalyticsProvider>;
};

const taking = () => {
  return answering((_, init) => {
    const { events } = JSON.parse(String(init?.body)) as { events: unknown[] };
    return json(202, { accepted: events.length, duplicates: 0, rejected: [] });
  });
};

test("an event tracked in an effect is sent, and the function stays the same", async () => {
  const { config, calls } = taking();
  let isTracked = false;
  const { result, rerender } = renderHook(
    () => {
      const track = useTrackEvent();
      useEffect(() => {
        if (!isTracked) void track({ eventType: "page_view" });
        isTracked = true;
      }, [track]);
      return { track, client: useAnalyticsClient() };
    },
    { wrapper: within({ ...config, flushAfterMs: 10 } as Config), reactStrictMode: true },
  );
  const before = result.current;
  rerender();
  expect(result.current.track).toBe(before.track);
  expect(result.current.client).toBe(before.client);
  await waitFor(() => expect(calls).toHaveBeenCalledTimes(1));
  await result.current.client.flush();
  expect(calls).toHaveBeenCalledTimes(1);
});

test("what waits is sent when the provider is unmounted", async () => {
  const { config, calls } = taking();
  const { result, unmount } = renderHook(() => useTrackEvent(), {
    wrapper: within({ ...config, flushAfterMs: 60_000 } as Config),
  });
  await new Promise((resolve) => setTimeout(resolve, 20));
  await result.current({ eventType: "leave" });
  expect(calls).not.toHaveBeenCalled();
  unmount();
  await waitFor(() => expect(calls).toHaveBeenCalledTimes(1));
});

test("a client that is given is used, and is not stopped", async () => {
  const { client, calls } = taking();
  const given = client();
  const stop = vi.spyOn(given, "stop");
  const wrapper = ({ children }: { children: ReactNode }) => (
    <AnalyticsProvider client={given}>{children}</AnalyticsProvider>
  );
  const { result, unmount } = renderHook(() => useTrackEvent(), { wrapper });
  await result.current({ eventType: "x" });
  unmount();
  expect(stop).not.toHaveBeenCalled();
  await given.shutdown();
  expect(calls).toHaveBeenCalledTimes(1);
});

test("events come page by page", async () => {
  const { config, calls } = answering(pagesOf(5));
  const { result } = renderHook(() => useEvents({ pageSize: 2, eventType: "click" }), { wrapper: within(config) });
  expect(result.current).toMatchObject({ isLoading: true, data: undefined, error: null });
  await waitFor(() => expect(result.current.data).toHaveLength(2));
  expect(result.current.hasNextPage).toBe(true);
  await result.current.fetchNextPage();
  await result.current.fetchNextPage();
  await waitFor(() => expect(result.current.data).toHaveLength(5));
  expect(result.current).toMatchObject({ isLoading: false, hasNextPage: false });
  expect(calls.mock.calls.map(([url]) => url.searchParams.get("cursor"))).toEqual([null, "2", "4"]);
});

test("under StrictMode, questions are answered, and asked for again when the first were given up", async () => {
  const { config } = answering(pagesOf(3));
  const wrapper = within(config);
  const { result } = renderHook(() => useEvents({ pageSize: 2 }), { wrapper, reactStrictMode: true });
  await waitFor(() => expect(result.current.data).toHaveLength(2));
  await result.current.fetchNextPage();
  await waitFor(() => expect(result.current).toMatchObject({ hasNextPage: false, error: null, isLoading: false }));
  expect(result.current.data).toHaveLength(3);
});

test("an error is the client's own, and asking again helps", async () => {
  const { config, calls } = answering(pagesOf(1));
  calls.mockImplementationOnce(() => json(403, { error: { code: "PERMISSION_DENIED", message: "no" } }));
  const { result } = renderHook(() => useEvents(), { wrapper: within(config) });
  await waitFor(() => expect(result.current.error).toMatchObject({ code: "PERMISSION_DENIED", status: 403 }));
  await result.current.refetch();
  await waitFor(() => expect(result.current.data).toHaveLength(1));
  expect(result.current.error).toBeNull();
});

test("the same metrics are asked for once, other metrics by themselves", async () => {
  const { config, calls } = answering(() =>
    json(200, { org_id: "a", metrics: [{ name: "events", total: 3, daily: [] }] }),
  );
  const days = { startDate: "2026-11-01", endDate: "2026-11-27" };
  const { result } = renderHook(
    () => [useMetrics(days), useMetrics({ ...days }), useMetrics({ ...days, metrics: ["ctr"] })],
    { wrapper: within(config) },
  );
  await waitFor(() => expect(result.current.every((query) => query.isSuccess)).toBe(true));
  expect(result.current[0]?.data?.metrics[0]).toMatchObject({ name: "events", total: 3 });
  expect(calls).toHaveBeenCalledTimes(2);
});

test("dates that are made anew at each rendering are the same question all day", async () => {
  const { config, calls } = answering(() => json(200, { org_id: "a", metrics: [] }));
  const { result } = renderHook(
    () => useMetrics({ startDate: new Date(Date.now() - 86_400_000), endDate: new Date(Date.now()) }),
    { wrapper: within(config) },
  );
  await waitFor(() => expect(result.current.isSuccess).toBe(true));
  await new Promise((resolve) => setTimeout(resolve, 30));
  expect(result.current.isSuccess).toBe(true);
  expect(calls).toHaveBeenCalledTimes(1);
  expect(calls.mock.calls[0]?.[0].searchParams.get("end_date")).toMatch(/^\d{4}-\d\d-\d\d$/);
});

function Count({ shown }: { shown: (number | undefined)[] }) {
  const { data } = useEvents();
  shown.push(data?.length);
  return null;
}

test("answers to one client are not shown to another, also where they share a cache", async () => {
  const queryClient = new QueryClient();
  const [one, other] = [1, 3].map((count) => answering(pagesOf(count)).client());
  const shown: (number | undefined)[] = [];
  const app = (client: AnalyticsClient | undefined) => (
    <AnalyticsProvider client={client as AnalyticsClient} queryClient={queryClient}>
      <Count shown={shown} />
    </AnalyticsProvider>
  );
  const { rerender } = render(app(one));
  await waitFor(() => expect(shown.at(-1)).toBe(1));
  shown.length = 0;
  rerender(app(other));
  await waitFor(() => expect(shown.at(-1)).toBe(3));
  expect(shown).not.toContain(1);
});

test("a question is given up when nobody waits for it any more", async () => {
  const { config, calls } = answering(() => new Promise<Response>(() => {}));
  const { unmount } = renderHook(() => useEvents(), {
    wrapper: ({ children }) => <AnalyticsProvider config={config}>{children}</AnalyticsProvider>,
  });
  await waitFor(() => expect(calls).toHaveBeenCalledTimes(1));
  unmount();
  expect(calls.mock.calls[0]?.[1]?.signal?.aborted).toBe(true);
});

test("a hook without a provider says so", () => {
  vi.spyOn(console, "error").mockImplementation(() => {});
  expect(() => renderHook(() => useTrackEvent())).toThrow("AnalyticsProvider");
});

/** A page that calls the service by grpc-web. */
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { ConnectError } from "@connectrpc/connect";
import { createGrpcClients, Durability, Verdict } from "@tallyhouse/analytics-sdk/grpc";

export interface GrpcPage {
  isReady: true;
  /** Watches a campaign, sends two events of it, one of them twice, and answers what it saw. */
  watchAndSend(apiKey: string, campaignId: string): Promise<{ seen: string[]; accepted: number; impressions: number }>;
  /** Makes, lists and revokes a write key, and lists subscriptions. Answers what was listed. */
  administer(apiKey: string): Promise<{ keys: string[]; revoked: string[]; subscriptions: number }>;
  /** The code of the error for segments; 0 when they are listed. */
  codeOfSegments(apiKey: string): Promise<number>;
  /** The code of the error for an event that there is not. */
  codeOfMissing(apiKey: string): Promise<number>;
}

const page = window as unknown as GrpcPage;

page.watchAndSend = async (apiKey, campaignId) => {
  const { ingest, outcomes, query } = createGrpcClients({ baseUrl: location.origin, apiKey });
  const event = (eventId: string) => {
    return { eventId, type: "impression", campaignId, source: "browser", occurredAt: timestampNow() };
  };
  const stop = new AbortController();
  const seen: string[] = [];
  const watched = (async () => {
    for await (const { report } of outcomes.watch({ campaignId }, { signal: stop.signal })) {
      if (report.case !== "outcome") continue;
      seen.push(`${report.value.eventId} ${Verdict[report.value.verdict]}`);
      if (report.value.eventId === "last") return;
    }
  })();
  // The watch may begin later than the call that asks for it: until it has, the same event is sent again.
  const first = event("first");
  let accepted = 0;
  while (seen.length === 0) {
    const { counts } = await ingest.ingestBatch({ events: [first], durability: Durability.STORED });
    accepted += counts?.accepted ?? 0;
  }
  const { counts } = await ingest.ingestBatch({ events: [event("last")], durability: Durability.STORED });
  await watched;
  stop.abort();
  const now = BigInt(Math.floor(Date.now() / 1000));
  const window = { from: { seconds: now - 3600n }, to: { seconds: now + 60n } };
  const stats = await query.getCampaignStats({ campaignId, window });
  const impressions = stats.series.reduce((sum, bucket) => sum + Number(bucket.impressions), 0);
  return { seen: [...new Set(seen)], accepted: accepted + (counts?.accepted ?? 0), impressions };
};

page.administer = async (apiKey) => {
  const { writeKeys: client, deliveries } = createGrpcClients({ baseUrl: location.origin, apiKey });
  const { writeKey } = await client.createWriteKey({ name: "page" });
  const names = async (isRevoked: boolean) => {
    const { writeKeys } = await client.listWriteKeys({});
    return writeKeys.filter(({ revokedAt }) => (revokedAt !== undefined) === isRevoked).map(({ name }) => name);
  };
  const keys = await names(false);
  await client.revokeWriteKey({ keyId: writeKey?.keyId ?? "" });
  const { subscriptions } = await deliveries.listSubscriptions({});
  return { keys, revoked: await names(true), subscriptions: subscriptions.length };
};

page.codeOfSegments = async (apiKey) => {
  const { segments } = createGrpcClients({ baseUrl: location.origin, apiKey });
  return segments.listSegments({}).then(
    () => 0,
    (error) => ConnectError.from(error).code,
  );
};

page.codeOfMissing = async (apiKey) => {
  const { query } = createGrpcClients({ baseUrl: location.origin, apiKey: async () => apiKey });
  return query.getEvent({ eventId: "nobody" }).then(
    () => 0,
    (error) => ConnectError.from(error).code,
  );
};

page.isReady = true;

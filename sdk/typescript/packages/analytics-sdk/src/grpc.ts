/**
 * The service's gRPC interface for browsers: grpc-web through fetch, made from the protocol's files.
 *
 * A separate entry point, since it brings connect and protobuf with it. Browsers cannot stream requests: send events by
 * `IngestService.IngestBatch`, or by the core SDK, which also keeps them through failures and reloads; a consumer of
 * `DeliveryService.Consume` runs elsewhere.
 *
 * @packageDocumentation
 */
import { type Client, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { AuditService } from "./gen/tallyhouse/v1/audit_pb.js";
import { DeliveryService } from "./gen/tallyhouse/v1/delivery_pb.js";
import { EventTypeService } from "./gen/tallyhouse/v1/event_type_pb.js";
import { IngestService } from "./gen/tallyhouse/v1/ingest_pb.js";
import { MetricsService } from "./gen/tallyhouse/v1/metrics_pb.js";
import { OrganizationService } from "./gen/tallyhouse/v1/organization_pb.js";
import { OutcomeService } from "./gen/tallyhouse/v1/outcome_pb.js";
import { QueryService } from "./gen/tallyhouse/v1/query_pb.js";
import { SegmentService } from "./gen/tallyhouse/v1/segment_pb.js";
import { WriteKeyService } from "./gen/tallyhouse/v1/write_key_pb.js";
import type { ApiKey } from "./token.js";

export * from "./gen/tallyhouse/v1/audit_pb.js";
export * from "./gen/tallyhouse/v1/delivery_pb.js";
export * from "./gen/tallyhouse/v1/event_pb.js";
export * from "./gen/tallyhouse/v1/event_type_pb.js";
export * from "./gen/tallyhouse/v1/ingest_pb.js";
export * from "./gen/tallyhouse/v1/metrics_pb.js";
export * from "./gen/tallyhouse/v1/organization_pb.js";
export * from "./gen/tallyhouse/v1/outcome_pb.js";
export * from "./gen/tallyhouse/v1/query_pb.js";
export * from "./gen/tallyhouse/v1/segment_pb.js";
export * from "./gen/tallyhouse/v1/write_key_pb.js";

/** Where the service is. */
export interface GrpcOptions {
  /** Such as `https://analytics.example`. */
  baseUrl: string;
  /** A token, or a function that returns one and is called before each request. Default: none. */
  apiKey?: ApiKey | undefined;
  /** Replaces `fetch`. */
  fetch?: typeof fetch;
}

/** A client of each service. */
export interface GrpcClients {
  ingest: Client<typeof IngestService>;
  query: Client<typeof QueryService>;
  outcomes: Client<typeof OutcomeService>;
  metrics: Client<typeof MetricsService>;
  organizations: Client<typeof OrganizationService>;
  eventTypes: Client<typeof EventTypeService>;
  audit: Client<typeof AuditService>;
  deliveries: Client<typeof DeliveryService>;
  writeKeys: Client<typeof WriteKeyService>;
  segments: Client<typeof SegmentService>;
}

/** A grpc-web transport that sends the token, for `createClient` of `@connectrpc/connect`. */
export function createTransport({ baseUrl, apiKey, fetch }: GrpcOptions): Transport {
  const authorize: Interceptor = (next) => async (request) => {
    const token = typeof apiKey === "function" ? await apiKey() : apiKey;
    if (token) request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
  return createGrpcWebTransport({ baseUrl, interceptors: [authorize], ...(fetch ? { fetch } : {}) });
}

/** Clients of every service over one transport. */
export function createGrpcClients(options: GrpcOptions): GrpcClients {
  const transport = createTransport(options);
  return {
    ingest: createClient(IngestService, transport),
    query: createClient(QueryService, transport),
    outcomes: createClient(OutcomeService, transport),
    metrics: createClient(MetricsService, transport),
    organizations: createClient(OrganizationService, transport),
    eventTypes: createClient(EventTypeService, transport),
    audit: createClient(AuditService, transport),
    deliveries: createClient(DeliveryService, transport),
    writeKeys: createClient(WriteKeyService, transport),
    segments: createClient(SegmentService, transport),
  };
}

-- Shows. Times are milliseconds since 1970, in UTC.
CREATE TABLE shows (
    id UUID NOT NULL PRIMARY KEY,
    title TEXT NOT NULL,
    start_at BIGINT NOT NULL,
    end_at BIGINT NOT NULL CHECK (start_at < end_at),
    location TEXT NOT NULL,
    -- The location in composed form and case-folded in full, for the filter.
    location_folded TEXT COLLATE "C" NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('DRAFT', 'PUBLISHED', 'CANCELLED')),
    internal_notes TEXT,
    created_by TEXT,
    updated_at BIGINT NOT NULL,
    -- Counts the changes, from 1.
    version BIGINT NOT NULL
);

-- The order of lists, with what they are filtered by most.
CREATE INDEX shows_by_start ON shows (start_at, id, end_at, status);

-- What is to be told about shows: committed with the change that it is about.
CREATE TABLE notifications (
    position BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    show_id UUID NOT NULL REFERENCES shows (id),
    kind TEXT NOT NULL,
    message TEXT NOT NULL,
    occurred_at BIGINT NOT NULL,
    -- The show as it was then.
    title TEXT NOT NULL,
    start_at BIGINT NOT NULL,
    end_at BIGINT NOT NULL,
    location TEXT NOT NULL,
    status TEXT NOT NULL,
    -- PENDING: is to be sent. DELIVERED and GIVEN_UP: is not sent any more.
    state TEXT NOT NULL DEFAULT 'PENDING' CHECK (state IN ('PENDING', 'DELIVERED', 'GIVEN_UP')),
    attempts BIGINT NOT NULL DEFAULT 0,
    -- Nobody sends it before: it is just being sent, or is to be sent again.
    next_attempt_at BIGINT NOT NULL,
    last_error TEXT,
    -- When it was delivered or given up.
    settled_at BIGINT
);

CREATE INDEX notifications_pending ON notifications (show_id, position) WHERE state = 'PENDING';
CREATE INDEX notifications_due ON notifications (next_attempt_at) WHERE state = 'PENDING';
CREATE INDEX notifications_settled ON notifications (settled_at) WHERE state <> 'PENDING';

-- Calls that can be repeated: the show that each has made, as it was answered.
CREATE TABLE idempotency_keys (
    key TEXT NOT NULL PRIMARY KEY,
    fingerprint BYTEA NOT NULL,
    show_id UUID NOT NULL REFERENCES shows (id),
    status TEXT NOT NULL,
    internal_notes TEXT,
    updated_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);

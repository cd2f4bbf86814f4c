-- Retrieved documents in an older version than the newest seen of that document until then, by task and release. Versions are ordered by when they were first seen. Counts are weighted by 1 / sampling probability.
-- column documents: documents returned with a version
-- column documents_observed: the same, unweighted
-- column stale: stale documents
-- column rate: stale / documents
-- column cited: documents that an answer cites
-- column cited_stale: stale documents that an answer cites
-- column cited_rate: cited_stale / cited
-- column last_stale: end of the last run with a stale document
-- column example_document: a stale document of that run
-- column example_run_id: that run
-- example: SELECT task, release_id, documents, stale, rate FROM stale_sources ORDER BY rate DESC
WITH retrievals AS (
    SELECT tenant, task, release_id, release_fingerprint, stage, run_id, ended_at, weight_micros,
        unnest(retrieval) AS call
    FROM runs
    WHERE retrieval_calls > 0
),
returned AS (
    SELECT tenant, task, release_id, release_fingerprint, stage, run_id, ended_at, weight_micros,
        call['source_id'] AS source_id, unnest(call['documents']) AS document
    FROM retrievals
),
documents AS (
    SELECT tenant, task, release_id, release_fingerprint, stage, run_id, ended_at, weight_micros, source_id,
        document['id'] AS document_id, document['version'] AS version, coalesce(document['cited'], false) AS cited
    FROM returned
    WHERE document['version'] IS NOT NULL
),
versions AS (
    SELECT tenant, source_id, document_id, version, min(ended_at) AS first_seen
    FROM documents
    GROUP BY tenant, source_id, document_id, version
),
-- Versions first seen at one moment are equally new: neither makes the other stale.
moments AS (
    SELECT tenant, source_id, document_id, first_seen,
        lead(first_seen) OVER (PARTITION BY tenant, source_id, document_id ORDER BY first_seen) AS superseded_at
    FROM (SELECT DISTINCT tenant, source_id, document_id, first_seen FROM versions)
),
judged AS (
    SELECT d.*, coalesce(d.ended_at >= m.superseded_at, false) AS stale
    FROM documents AS d
    JOIN versions AS v
        ON d.tenant = v.tenant AND d.source_id = v.source_id AND d.document_id = v.document_id AND d.version = v.version
    JOIN moments AS m
        ON v.tenant = m.tenant AND v.source_id = m.source_id AND v.document_id = m.document_id
        AND v.first_seen = m.first_seen
),
counted AS (
    SELECT
        tenant, task, release_id, release_fingerprint, stage,
        sum(CAST(weight_micros AS DECIMAL(38, 0))) AS documents,
        count(*) AS documents_observed,
        coalesce(sum(CAST(weight_micros AS DECIMAL(38, 0))) FILTER (WHERE stale), 0) AS stale,
        coalesce(sum(CAST(weight_micros AS DECIMAL(38, 0))) FILTER (WHERE cited), 0) AS cited,
        coalesce(sum(CAST(weight_micros AS DECIMAL(38, 0))) FILTER (WHERE cited AND stale), 0) AS cited_stale,
        max(ended_at) FILTER (WHERE stale) AS last_stale,
        first_value(document_id ORDER BY ended_at DESC, run_id DESC, document_id DESC) FILTER (WHERE stale) AS example_document,
        first_value(run_id ORDER BY ended_at DESC, run_id DESC, document_id DESC) FILTER (WHERE stale) AS example_run_id
    FROM judged
    GROUP BY tenant, task, release_id, release_fingerprint, stage
)
SELECT
    tenant, task, release_id, release_fingerprint, stage,
    whole(documents / 1e6) AS documents,
    documents_observed,
    whole(stale / 1e6) AS stale,
    CAST(stale AS DOUBLE) / CAST(documents AS DOUBLE) AS rate,
    whole(cited / 1e6) AS cited,
    whole(cited_stale / 1e6) AS cited_stale,
    CAST(cited_stale AS DOUBLE) / nullif(CAST(cited AS DOUBLE), 0) AS cited_rate,
    last_stale, example_document, example_run_id
FROM counted

//! Application ids: the names under which writers record their progress in the log of a table (Delta's `txn` actions).
//!
//! They are on disk, so their form never changes. Only this module knows the forms. A log may also hold ids of other
//! programs, which do not parse.

use std::fmt;
use std::str::FromStr;

/// A partition of a topic, as one job reads it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    /// Job; `replay` for files. Contains no `/`.
    pub job: String,
    /// Kafka topic, or `file:NAME` for a file.
    pub topic: String,
    pub partition: i32,
}

/// The id of an application.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AppId {
    /// `JOB/TOPIC/PARTITION`: the offset to read next.
    Partition(PartitionId),
    /// `JOB/TOPIC/PARTITION/end`: the offset after the last message that the broker holds; negative if no worker reads the
    /// partition any more.
    End(PartitionId),
    /// `JOB/TOPIC/PARTITION/read`: a time in microseconds since the epoch. Every message that the broker held then is in the
    /// tables.
    Read(PartitionId),
    /// `JOB/TOPIC/PARTITION/claim`: the number of times that the partition has changed owners.
    Claim(PartitionId),
    /// `JOB/TOPIC/PARTITION/since`: the version of the table from which the present owner holds the partition.
    Since(PartitionId),
    /// `JOB/TOPIC/PARTITION/late`: the number of batches that reached `quarantine` after `events` had advanced past them.
    Late(PartitionId),
    /// `JOB/TOPIC#id`: a hash of the id that the broker gave the topic.
    TopicId {
        /// Job.
        job: String,
        /// Kafka topic.
        topic: String,
    },
    /// `JOB/TOPIC#start`: records that the topic is read from the end that it had at this commit.
    TopicStart {
        /// Job.
        job: String,
        /// Kafka topic.
        topic: String,
    },
    /// `aggregate/N`: the version of `events` that shard N reads next.
    Shard(u32),
    /// `aggregate/layout`: the number of shards and of rebuilds.
    Layout,
    /// `rollup/to`, in a roll-up: exactly the rows of its source with `events_to` up to this number are in it.
    RolledTo,
    /// `rollup/generation`, in a roll-up: the rebuild of `metrics` that it was made from.
    RolledGeneration,
    /// `maintain/rewrites`: the number of rewrites of files.
    Rewrites,
    /// `maintain/unnamed`: a time in microseconds since the epoch. Files that were written before it, and that no commit had
    /// named by then, are gone: a later commit cannot name them.
    Unnamed,
    /// `maintain/kept_from`: a time in microseconds since the epoch. Everything from then on is in the table; older rows may
    /// have been removed because they were kept for long enough.
    KeptFrom,
    /// `erase/contributions`, in `events`: names the file of erased runs' contributions to `metrics`.
    Erased,
    /// `erase/tenants`, in `events`, `metrics` and its roll-ups: the number of erased tenants. A table is behind while a tenant is
    /// being erased.
    ErasedTenants,
    /// `watch/0`: the number of evaluations.
    Watch,
    /// `hands/actions`, in `alert_actions`: the number of actions.
    Actions,
    /// `deliver/0`: the number of commits to `deliveries`.
    Deliver,
    /// `deliver/evaluation`: the last evaluation in `alerts` of which all transitions are in `deliveries`.
    Delivered,
    /// `watch/events`: the version of `events` that a watcher reads next, recorded for heartbeats.
    WatchEvents,
    /// `deliver/alerts`: the version of `alerts` that a deliverer reads next, recorded for heartbeats.
    DeliverAlerts,
    /// `evals/0`: the number of commits to `candidates`.
    Evals,
    /// `evals/events`: the version of `events` that the sampler reads next.
    EvalsEvents,
}

/// The error for a text that is not an application id of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignAppId;

// === impl PartitionId ===

impl PartitionId {
    /// Names a partition.
    pub fn new(job: impl Into<String>, topic: impl Into<String>, partition: i32) -> Self {
        Self { job: job.into(), topic: topic.into(), partition }
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.job, self.topic, self.partition)
    }
}

impl FromStr for PartitionId {
    type Err = ForeignAppId;

    fn from_str(text: &str) -> Result<Self, ForeignAppId> {
        let (head, partition) = text.rsplit_once('/').ok_or(ForeignAppId)?;
        let (job, topic) = head.split_once('/').ok_or(ForeignAppId)?;
        Ok(Self::new(job, topic, partition.parse().map_err(|_| ForeignAppId)?))
    }
}

// === impl AppId ===

impl AppId {
    /// Returns the id for the offset of a partition.
    pub fn partition(job: impl Into<String>, topic: impl Into<String>, partition: i32) -> Self {
        Self::Partition(PartitionId::new(job, topic, partition))
    }

    /// Returns true if the number states a fact, which may decrease: one about a broker, or what the table holds. All other
    /// numbers only grow.
    pub fn is_fact(&self) -> bool {
        matches!(self, Self::End(_) | Self::Read(_) | Self::KeptFrom)
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(partition) => write!(f, "{partition}"),
            Self::End(partition) => write!(f, "{partition}/end"),
            Self::Read(partition) => write!(f, "{partition}/read"),
            Self::Claim(partition) => write!(f, "{partition}/claim"),
            Self::Since(partition) => write!(f, "{partition}/since"),
            Self::Late(partition) => write!(f, "{partition}/late"),
            Self::TopicId { job, topic } => write!(f, "{job}/{topic}#id"),
            Self::TopicStart { job, topic } => write!(f, "{job}/{topic}#start"),
            Self::Shard(shard) => write!(f, "aggregate/{shard}"),
            Self::Layout => f.write_str("aggregate/layout"),
            Self::RolledTo => f.write_str("rollup/to"),
            Self::RolledGeneration => f.write_str("rollup/generation"),
            Self::Rewrites => f.write_str("maintain/rewrites"),
            Self::Unnamed => f.write_str("maintain/unnamed"),
            Self::KeptFrom => f.write_str("maintain/kept_from"),
            Self::Erased => f.write_str("erase/contributions"),
            Self::ErasedTenants => f.write_str("erase/tenants"),
            Self::Watch => f.write_str("watch/0"),
            Self::Actions => f.write_str("hands/actions"),
            Self::Deliver => f.write_str("deliver/0"),
            Self::Delivered => f.write_str("deliver/evaluation"),
            Self::WatchEvents => f.write_str("watch/events"),
            Self::DeliverAlerts => f.write_str("deliver/alerts"),
            Self::Evals => f.write_str("evals/0"),
            Self::EvalsEvents => f.write_str("evals/events"),
        }
    }
}

impl FromStr for AppId {
    type Err = ForeignAppId;

    fn from_str(text: &str) -> Result<Self, ForeignAppId> {
        match text {
            "aggregate/layout" => return Ok(Self::Layout),
            "rollup/to" => return Ok(Self::RolledTo),
            "rollup/generation" => return Ok(Self::RolledGeneration),
            "maintain/rewrites" => return Ok(Self::Rewrites),
            "maintain/unnamed" => return Ok(Self::Unnamed),
            "maintain/kept_from" => return Ok(Self::KeptFrom),
            "erase/contributions" => return Ok(Self::Erased),
            "erase/tenants" => return Ok(Self::ErasedTenants),
            "watch/0" => return Ok(Self::Watch),
            "hands/actions" => return Ok(Self::Actions),
            "deliver/0" => return Ok(Self::Deliver),
            "deliver/evaluation" => return Ok(Self::Delivered),
            "watch/events" => return Ok(Self::WatchEvents),
            "deliver/alerts" => return Ok(Self::DeliverAlerts),
            "evals/0" => return Ok(Self::Evals),
            "evals/events" => return Ok(Self::EvalsEvents),
            _ => {}
        }
        if let Ok(partition) = text.parse() {
            return Ok(Self::Partition(partition));
        }
        if let Some(shard) = text.strip_prefix("aggregate/").and_then(|shard| shard.parse().ok()) {
            return Ok(Self::Shard(shard));
        }
        if let Some((partition, kind)) = text.rsplit_once('/')
            && let Ok(partition) = partition.parse()
        {
            return match kind {
                "end" => Ok(Self::End(partition)),
                "read" => Ok(Self::Read(partition)),
                "claim" => Ok(Self::Claim(partition)),
                "since" => Ok(Self::Since(partition)),
                "late" => Ok(Self::Late(partition)),
                _ => Err(ForeignAppId),
            };
        }
        let topic_of = |head: &str| head.split_once('/').map(|(job, topic)| (job.to_owned(), topic.to_owned()));
        if let Some((job, topic)) = text.strip_suffix("#id").and_then(topic_of) {
            return Ok(Self::TopicId { job, topic });
        }
        if let Some((job, topic)) = text.strip_suffix("#start").and_then(topic_of) {
            return Ok(Self::TopicStart { job, topic });
        }
        Err(ForeignAppId)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// These forms are on disk: changing one would break every existing root.
    #[test]
    fn the_forms_on_disk_are_these() {
        let runs = || PartitionId::new("main", "llm.runs", 3);
        let (job, topic) = ("main".to_owned(), "llm.runs".to_owned());
        let golden = [
            (AppId::Partition(runs()), "main/llm.runs/3"),
            (AppId::End(runs()), "main/llm.runs/3/end"),
            (AppId::Read(runs()), "main/llm.runs/3/read"),
            (AppId::Claim(runs()), "main/llm.runs/3/claim"),
            (AppId::Since(runs()), "main/llm.runs/3/since"),
            (AppId::Late(runs()), "main/llm.runs/3/late"),
            (AppId::TopicId { job: job.clone(), topic: topic.clone() }, "main/llm.runs#id"),
            (AppId::TopicStart { job, topic }, "main/llm.runs#start"),
            (AppId::partition("replay", "file:a/b.ndjson@12", 0), "replay/file:a/b.ndjson@12/0"),
            (AppId::Shard(7), "aggregate/7"),
            (AppId::Layout, "aggregate/layout"),
            (AppId::RolledTo, "rollup/to"),
            (AppId::RolledGeneration, "rollup/generation"),
            (AppId::Rewrites, "maintain/rewrites"),
            (AppId::Unnamed, "maintain/unnamed"),
            (AppId::KeptFrom, "maintain/kept_from"),
            (AppId::Erased, "erase/contributions"),
            (AppId::ErasedTenants, "erase/tenants"),
            (AppId::Watch, "watch/0"),
            (AppId::Actions, "hands/actions"),
            (AppId::Deliver, "deliver/0"),
            (AppId::Delivered, "deliver/evaluation"),
            (AppId::WatchEvents, "watch/events"),
            (AppId::DeliverAlerts, "deliver/alerts"),
            (AppId::Evals, "evals/0"),
            (AppId::EvalsEvents, "evals/events"),
        ];
        for (id, text) in golden {
            assert_eq!(id.to_string(), text);
            assert_eq!(text.parse(), Ok(id));
        }
    }

    #[test]
    fn ids_of_other_programs_do_not_parse() {
        for text in [
            "",
            "/",
            "x",
            "spark-query-1",
            "main/llm.runs",
            "main/llm.runs/3/other",
            "aggregate/-1",
            "rollup/from",
            "watch/1",
        ] {
            assert_eq!(text.parse::<AppId>(), Err(ForeignAppId), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_id_is_read_back(job in "[a-z][a-z0-9_-]{0,8}", topic in "[a-zA-Z0-9._-]{1,12}", n in 0..i32::MAX, kind in 0..8) {
            let partition = PartitionId::new(&job, &topic, n);
            let id = match kind {
                0 => AppId::Partition(partition),
                1 => AppId::End(partition),
                2 => AppId::Read(partition),
                3 => AppId::Claim(partition),
                4 => AppId::Since(partition),
                5 => AppId::Late(partition),
                6 => AppId::TopicId { job, topic },
                _ => AppId::TopicStart { job, topic },
            };
            prop_assert_eq!(id.to_string().parse::<AppId>(), Ok(id));
        }

        #[test]
        fn any_text_that_parses_is_written_back_as_it_was(text in ".{0,40}") {
            if let Ok(id) = text.parse::<AppId>() {
                // `+7` and `007` parse as numbers too, but this program never writes them.
                prop_assume!(!text.split('/').any(|part| part.starts_with('+') || (part.len() > 1 && part.starts_with('0'))));
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}

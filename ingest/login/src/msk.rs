//! IAM of Amazon MSK: the token is a signed URL of `kafka-cluster:Connect`, which the broker calls.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bellwether_base::{Error, Result};
use object_store::RetryConfig;
use object_store::aws::AmazonS3Builder;

use crate::Token;
use crate::presign::{Credential, presigned};

/// Lifetime of a token: the longest that MSK accepts.
const VALID: Duration = Duration::from_secs(900);

/// Time limit for finding credentials, including two retries.
const FINDING: Duration = Duration::from_secs(10);

/// Identifies the client in AWS's logs.
const USER_AGENT: &str = concat!("bellwether/", env!("CARGO_PKG_VERSION"));

/// IAM of Amazon MSK. Credentials are found as for tables in S3: in the variables `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`
/// and `AWS_SESSION_TOKEN`, by a web identity, or from the task, pod or instance.
#[derive(Clone)]
pub struct MskSettings {
    /// Region of the cluster.
    pub region: String,
}

impl fmt::Debug for MskSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MskSettings").field("region", &self.region).finish()
    }
}

/// Returns the region that the name of a broker of MSK holds, such as
/// `b-1.acme.abcdef.c1.kafka.eu-central-1.amazonaws.com:9098`.
pub fn region_of(broker: &str) -> Option<&str> {
    let host = broker.split_once(':').map_or(broker, |(host, _)| host);
    let name = host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn"))?;
    let (rest, region) = name.rsplit_once('.')?;
    matches!(rest.rsplit('.').next(), Some("kafka" | "kafka-serverless")).then_some(region)
}

// === impl MskSettings ===

impl MskSettings {
    pub(crate) async fn token(&self, now_micros: i64) -> Result<Token> {
        let refuse = |source: object_store::Error| {
            Error::unavailable("there are no credentials of AWS for the token of MSK")
                .with_hint("give the pod, task or instance a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
                .with_source(source)
        };
        // The builder finds credentials in all the usual places. No request is ever sent to the bucket.
        let store = AmazonS3Builder::from_env()
            .with_region(&self.region)
            .with_bucket_name("unused")
            .with_retry(RetryConfig { max_retries: 2, retry_timeout: FINDING, ..RetryConfig::default() })
            .build();
        let found = store.map_err(refuse)?.credentials().get_credential().await.map_err(refuse)?;
        let credential = Credential { id: &found.key_id, key: &found.secret_key, token: found.token.as_deref() };
        Ok(Token {
            value: token(&self.region, &credential, now_micros)?,
            extensions: BTreeMap::new(),
            principal: found.key_id.clone(),
            issued_micros: now_micros,
            expires_micros: now_micros + i64::try_from(VALID.as_micros()).unwrap_or(i64::MAX),
        })
    }
}

/// Returns the token of a credential.
fn token(region: &str, credential: &Credential<'_>, now_micros: i64) -> Result<String> {
    let host = format!("kafka.{region}.amazonaws.com");
    let action = [("Action", "kafka-cluster:Connect")];
    let signed = presigned(&host, &action, ("kafka-cluster", region), credential, (now_micros, VALID))?;
    // The signature does not cover this parameter.
    Ok(URL_SAFE_NO_PAD.encode(format!("{signed}&User-Agent={}", crate::presign::encoded(USER_AGENT))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_part_of_the_brokers_names() {
        for (broker, region) in [
            ("b-1.acme.abcdef.c1.kafka.eu-central-1.amazonaws.com:9098", Some("eu-central-1")),
            ("boot-x.c2.kafka-serverless.us-east-1.amazonaws.com:9098", Some("us-east-1")),
            ("b-1.acme.abcdef.c1.kafka.cn-north-1.amazonaws.com.cn:9098", Some("cn-north-1")),
            ("b-1.kafka.acme.example:9098", None),
            ("bucket.s3.eu-central-1.amazonaws.com:443", None),
        ] {
            assert_eq!(region_of(broker), region, "{broker}");
        }
    }

    /// Computed by AWS's own signer for Python, aws-msk-iam-sasl-signer-python, at the same time with the same credentials; the
    /// order of its parameters differs.
    #[test]
    fn a_token_has_the_signature_of_awss_own_signer() {
        let at = 1_796_000_000_000_000;
        for (session, signature) in [
            (None, "b8ad54d98c0c7590a174d971e283e36fb7cd2d678490bd9496dfa575e6a1ede2"),
            (Some("IQoJb3JpZ2luX2VjEA//+=="), "9a389bd0ee51efb3a728d01657424c82cbab49c6d15c128dd6f7ce6d2f71b248"),
        ] {
            let credential =
                Credential { id: "AKIDEXAMPLE", key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token: session };
            let token = token("eu-central-1", &credential, at).expect("signs");
            let url = String::from_utf8(URL_SAFE_NO_PAD.decode(&token).expect("base64")).expect("UTF-8");
            assert!(
                url.starts_with("https://kafka.eu-central-1.amazonaws.com/?Action=kafka-cluster%3AConnect&"),
                "{url}"
            );
            assert!(url.contains(&format!("&X-Amz-Signature={signature}&User-Agent=bellwether%2F")), "{url}");
            assert_eq!(url.contains("X-Amz-Security-Token=IQoJb3JpZ2luX2VjEA%2F%2F%2B%3D%3D&"), session.is_some());
            assert!(!url.contains("wJalr"), "the key stays here");
        }
    }
}

//! Endpoints for other services. They exist only if the configuration names the secret by which the service signs its requests.

pub(crate) mod pagerduty;

use axum::Router;
use bellwether_lake::Lake;

use crate::serve::ServeSettings;

/// Returns the endpoints that the settings turn on.
pub(crate) fn router(settings: &ServeSettings, lake: &Lake) -> Router {
    match settings.pagerduty.is_empty() {
        true => Router::new(),
        false => pagerduty::router(settings.pagerduty.clone(), lake.clone()),
    }
}

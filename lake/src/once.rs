//! Notes of things that were done once, such as a message that must not be sent again: one small object each, under the root.

use object_store::{ObjectStoreExt, PutPayload};

use crate::root::Lake;
use crate::stored::{Stored, from_store};
use bellwether_base::Result;

/// Folder of the notes under the root.
const FOLDER: &str = "_done";

impl Lake {
    fn note(&self, name: &str) -> object_store::path::Path {
        self.base().join(FOLDER).join(format!("{name}.json"))
    }

    /// Returns true if a thing was noted as done. The name is letters, digits and hyphens.
    ///
    /// # Errors
    /// `Unavailable` if the store does not answer.
    pub async fn is_done(&self, name: &str) -> Result<bool> {
        match self.objects().head(&self.note(name)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(from_store(source)),
        }
    }

    /// Notes that a thing is done, with a text about it.
    ///
    /// # Errors
    /// `Unavailable` if the store does not answer.
    pub async fn note_done(&self, name: &str, about: String) -> Result<()> {
        self.objects().put(&self.note(name), PutPayload::from(about)).await.stored()?;
        Ok(())
    }
}

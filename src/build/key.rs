//! What a step is known by: an address of everything that goes into it.

use crate::runtime::image::LayerDigest;

/// An address in the making. Each part is written with its length, so that no two lists of parts are the same bytes.
pub(super) struct Key(Vec<u8>);

impl Key {
    /// Changes whenever steps are carried out in another way.
    const FORM: &str = "1";

    pub(super) fn new(kind: &str) -> Self {
        Self(Vec::new()).text(Self::FORM).text(kind)
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        self.0.extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    pub(super) fn list(self, list: &[String]) -> Self {
        let key = self.text(&list.len().to_string());
        list.iter().fold(key, |key, text| key.text(text))
    }

    pub(super) fn digest(self, digest: &LayerDigest) -> Self {
        self.text(&digest.hex())
    }

    pub(super) fn finish(self) -> LayerDigest {
        LayerDigest::of(&self.0)
    }
}

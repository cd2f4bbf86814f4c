//! The kinds of redacted values.

/// A kind of personal data or secret. The order is that of precedence: of overlapping findings the first kind names both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A private key or certificate in PEM form.
    Pem,
    /// A URL with a user and password.
    UrlCredentials,
    /// A JSON Web Token.
    Jwt,
    /// A key, token or password.
    Secret,
    /// An IPv4 or IPv6 address.
    Ip,
    Iban,
    /// A payment card.
    Card,
    /// A national identity, tax or insurance number.
    NationalId,
    Email,
    Phone,
    /// A name of the configured list.
    Name,
    /// A text that was replaced because it could not be searched.
    Unread,
}

// === impl Kind ===

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Pem,
        Self::UrlCredentials,
        Self::Jwt,
        Self::Secret,
        Self::Ip,
        Self::Iban,
        Self::Card,
        Self::NationalId,
        Self::Email,
        Self::Phone,
        Self::Name,
        Self::Unread,
    ];

    /// Returns the kinds that a policy may keep: those that detectors find by themselves.
    pub fn choices() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kind| !matches!(kind, Self::Name | Self::Unread))
    }

    /// Returns the name in placeholders and counts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pem => "PEM",
            Self::UrlCredentials => "URL_CREDENTIALS",
            Self::Jwt => "JWT",
            Self::Secret => "SECRET",
            Self::Iban => "IBAN",
            Self::Card => "CARD",
            Self::NationalId => "NATIONAL_ID",
            Self::Email => "EMAIL",
            Self::Ip => "IP",
            Self::Phone => "PHONE",
            Self::Name => "NAME",
            Self::Unread => "UNREAD",
        }
    }

    /// Returns the kind with this name, in any case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    /// Returns false if separators only group the characters of a value, and do not make a different one.
    pub(crate) const fn keeps_separators(self) -> bool {
        !matches!(self, Self::Iban | Self::Card | Self::NationalId | Self::Phone)
    }
}

//! Every reason that a condition can have, in one list. docs/conditions.md explains each.
//! It must not know how one is found.

use std::fmt;

/// Something that is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trouble {
    pub reason: Reason,
    /// What is wrong, with the names it concerns; what to do. The last `"; "` parts the two.
    pub sentence: String,
}

impl Trouble {
    pub fn new(reason: Reason, what: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self {
            reason,
            sentence: format!("{what}; {remedy}"),
        }
    }

    /// The sentence without what to do.
    #[must_use]
    pub fn what(&self) -> &str {
        self.sentence
            .rsplit_once("; ")
            .map_or(&self.sentence, |(what, _)| what)
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Why a condition is as it is. The order is that of causes before their effects: where much is wrong, the first
        /// is named.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As it stands in a condition.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

reasons! {
    /// The spec can never be right.
    Invalid,
    /// The spec is right, but this version cannot do it.
    NotSupportedYet,
    /// No spec of the chain was ever accepted, so there is nothing to judge.
    NotAccepted,
    /// A Revocation names a chain that is not there.
    NoSuchChain,
    /// A Revocation names an issuer that its chain does not have.
    NoSuchIssuer,
    /// A Revocation does not fit into the bundle.
    BundleFull,
    /// The namespace is being deleted.
    NamespaceEnding,
    /// An object of that name is somebody else's.
    NameTaken,
    /// The operator may not do it.
    Forbidden,
    /// The namespace's quota or limits allow no more.
    QuotaExceeded,
    /// A policy of the cluster refuses it.
    AdmissionDenied,
    /// The API server finds an object invalid.
    WriteRefused,
    /// The API server could not do it now.
    WriteFailed,
    /// A volume is there, and the Secret that opens it is not.
    PasswordLost,
    MissingSecret,
    MissingConfigMap,
    VolumeNotBound,
    PodUnschedulable,
    /// Pods are not made at all, for another reason than quota or policy.
    PodNotCreated,
    ImageNotPulled,
    VolumeNotMounted,
    ContainerNotCreated,
    /// A container is ended because it takes more memory than it may.
    OutOfMemory,
    ContainerCrashes,
    /// The keys of an external issuer are not fetched.
    KeysNotFetched,
    /// The key set that is given for a static issuer is none.
    KeySetUnusable,
    /// An issuer has no key to sign with.
    NoActiveKey,
    /// Fewer pods are ready than there should be.
    NotEnoughReady,
    /// A rollout makes no progress.
    ProgressDeadlineExceeded,
    /// A verifier's clock is so far from the operator's that good tokens may be refused.
    ClockOff,
    /// The operator cannot read or write the chain's keys.
    KeysStuck,
    /// A verifier that should hold the newest keys does not.
    Laggards,
    /// A database's volume is of another major version than the spec asks for.
    VersionKept,
    /// The chain's first bundle is not written.
    NoBundleYet,
    /// No key of an external issuer is known, and nothing is known to be wrong.
    NoKeysYet,
    /// The newest keys are on their way.
    Distributing,
    /// Not every verifier has told its time yet.
    ClocksNotHeard,
    PodsStarting,
    RollingOut,
    /// All parts serve, and not all is well with them.
    StillServing,
    /// The gateway is ready, and tokens reach it in clear text.
    TokensInClear,
    /// The stores are ready, and none has a second instance or a backup.
    SingleInstance,
    NoStores,
    Paused,
    Accepted,
    AllReady,
    InSync,
    InStep,
    UpToDate,
    NothingWrong,
    /// Every verifier refuses what a Revocation names.
    Enforced,
    /// Whatever a Revocation names has expired.
    Expired,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

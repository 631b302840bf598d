//! Mistakes built into the world on purpose: for each the search must find a violated invariant.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    LowerTaken,
    AcknowledgedBeforeFsync,
    SignsWithStaged,
    StoppedKeysForgotten,
    /// The next bundle is sent to pods before the `ConfigMap` has it.
    PushedBeforeReplace,
    /// The `ConfigMap` is written whatever its version.
    WrittenWithoutVersion,
    /// What the chain asks for is read from a cache that lags.
    StaleDesired,
    /// Pods are listed from a cache that may be older than the `ConfigMap` that was read.
    StaleList,
    /// Answers are believed whatever their MAC.
    ForgedAnswersBelieved,
    /// A proof of possession is not asked for.
    ProofsNotChecked,
    /// Any leader answers knocks with what it remembers.
    KnocksAnsweredFromMemory,
    /// An issuer pod speaks with authority though nobody confirmed what it holds.
    UnconfirmedAuthority,
    /// A key that is not held is refused without asking.
    UnknownKeyNotAsked,
    /// What pods claim to hold is not read from them.
    NothingAdopted,
    /// A streamed answer goes on under whatever bundle it began.
    StreamsGoOn,
    /// An issuer signs for whom its own bundle revokes.
    RevokedAreGranted,
    /// A revocation matches whatever `iat` says.
    IssuedBeforeIgnored,
    /// Nothing is signed, nothing taken, while no leader acts.
    SilentOperatorStopsIssuers,
}

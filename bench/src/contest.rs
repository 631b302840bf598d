//! Taking turns over HTTP: contenders that listen somewhere are asked in slices, and what their processes used is
//! counted for each request.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::load::{Clients, Load, Pace, Requests};
use crate::process::ProcessorTime;
use crate::report::Row;
use crate::rounds::{Series, interleave};
use crate::settings::{Budget, Settings};

/// Requests at the same time, where nobody says otherwise.
const AT_ONCE: usize = 64;

/// Reads the processor time of a process, or of several that count as one.
pub(crate) struct Meter<'a> {
    pub(crate) of: &'static str,
    pub(crate) read: Box<dyn Fn() -> Result<ProcessorTime> + 'a>,
}

/// One that is asked.
pub(crate) struct Contender<'a> {
    pub(crate) case: String,
    pub(crate) proxy: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) requests: Requests,
    pub(crate) clients: Clients,
    /// Beside that of the settings.
    pub(crate) more_warm_up: Duration,
    pub(crate) meters: Vec<Meter<'a>>,
    /// Microseconds a request, of all meters together.
    pub(crate) times: Series,
    /// The same, of each.
    pub(crate) shares: Vec<Series>,
    pub(crate) rates: Series,
    pub(crate) errors: u64,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(
        case: impl Into<String>,
        proxy: &'static str,
        address: SocketAddr,
        requests: Requests,
    ) -> Self {
        Self {
            case: case.into(),
            proxy,
            address,
            requests,
            clients: Clients {
                connections: AT_ONCE,
                at_once: AT_ONCE,
            },
            meters: Vec::new(),
            shares: Vec::new(),
            more_warm_up: Duration::ZERO,
            times: Series::default(),
            rates: Series::default(),
            errors: 0,
        }
    }

    pub(crate) fn meter(&mut self, meter: Meter<'a>) {
        self.meters.push(meter);
        self.shares.push(Series::default());
    }

    pub(crate) fn row(&self, bench: &'static str) -> Row {
        let row = Row {
            requests_per_second: self.rates.middle().map(|rate| rate.median),
            ..Row::new(bench, self.case.clone(), self.proxy)
        };
        row.micros(&self.times).errors(self.errors)
    }

    fn slice(&mut self, settings: &Settings, load: &mut Load) -> Result<()> {
        let window = (settings.warm_up() + self.more_warm_up, settings.slice());
        let meters = &self.meters;
        let mark = || {
            meters
                .iter()
                .map(|meter| (meter.read)())
                .collect::<Result<Vec<_>>>()
        };
        let seen = load
            .run(
                self.address,
                &mut self.requests,
                Pace::Saturate,
                self.clients,
                window,
                mark,
            )
            .with_context(|| format!("{} by {}", self.case, self.proxy))?;
        let mut whole = 0.0;
        for (share, (before, after)) in self.shares.iter_mut().zip(seen.marks.0.iter().zip(&seen.marks.1)) {
            let micros = seen.micros_each(after.since(before));
            share.push(micros);
            whole += micros;
        }
        self.times.push(whole);
        self.rates.push(seen.per_second());
        self.errors += seen.errors;
        Ok(())
    }
}

/// Rounds of slices, as many as the budget allows. Each is asked everything once and gets one slice ahead that does not
/// count, in which caches and pools fill; `after` each slice logs may be thrown away.
pub(crate) fn take_turns(
    settings: &Settings,
    load: &mut Load,
    contenders: &mut [Contender<'_>],
    budget: Budget,
    after: &dyn Fn() -> Result<()>,
) -> Result<()> {
    for contender in contenders.iter_mut() {
        let (address, all) = (contender.address, contender.requests.count());
        // What goes wrong here goes wrong again, and is counted then.
        let _ = load.open(address, &mut contender.requests, AT_ONCE, all);
        load.close();
        contender.slice(settings, load)?;
        contender.shares.fill(Series::default());
        (contender.times, contender.rates) = (Series::default(), Series::default());
        contender.errors = 0;
        after()?;
    }
    interleave(settings.rounds, contenders.len(), budget, |turn| {
        contenders[turn].slice(settings, load)?;
        after()
    })?;
    Ok(())
}

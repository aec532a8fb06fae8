//! Progress on standard error: phase, share, rate, time left, and what does not answer; where that is no
//! terminal, only the last.

use super::args::OutputArgs;
use super::render::clean;
use super::waiting::Waiting;
use crate::base::{Event, Observer, Phase};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often a phase without measurable work shows that it is alive.
const TICK: Duration = Duration::from_millis(120);

/// Draws phases and prints warnings as they come.
pub(super) struct Progress {
    draw: bool,
    quiet: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bar: Option<ProgressBar>,
    /// Whether the line is for something else.
    hidden: bool,
    warned: Vec<String>,
    /// What the line calls its phase while it waits for nothing.
    phase: &'static str,
    /// What is waited for, as far as somebody was told.
    waiting: Option<Waiting>,
}

impl Progress {
    pub(super) fn new(output: OutputArgs) -> Progress {
        let draw = !output.no_progress && !output.quiet && std::io::stderr().is_terminal();
        Progress {
            draw,
            quiet: output.quiet,
            state: Mutex::default(),
        }
    }

    /// Takes the line away, so that other text can be printed.
    pub(super) fn finish(&self) {
        if let Some(bar) = self.lock().bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Takes the line away until what is returned is dropped; what happens meanwhile is counted.
    pub(super) fn hide(&self) -> Hidden<'_> {
        self.set_hidden(true);
        Hidden(self)
    }

    fn set_hidden(&self, hidden: bool) {
        let mut state = self.lock();
        state.hidden = hidden;
        if let Some(bar) = &state.bar {
            bar.set_draw_target(target(hidden));
            if hidden {
                // What was drawn stays where it is unless it is taken away.
                let _ = std::io::stderr().write_all(b"\r\x1b[2K");
            }
        }
    }

    /// Shows that a call takes long, or that none does any more.
    pub(super) fn wait_for(&self, waiting: Option<&Waiting>) {
        let mut state = self.lock();
        let told = std::mem::replace(&mut state.waiting, waiting.cloned());
        let text = |w: &Waiting| format!("{} {}", w.call.what, clean(&w.call.subject));
        if let Some(bar) = &state.bar {
            let message = waiting.map(|w| {
                let seconds = w.since.as_secs();
                format!("{}: waiting {seconds} s for {}", state.phase, text(w))
            });
            match message {
                Some(message) => bar.set_message(message),
                None if told.is_some() => bar.set_message(state.phase),
                None => {}
            }
            return;
        }
        drop(state);
        let same =
            |a: Option<&Waiting>, b: &Waiting| a.is_some_and(|a| a.call.number == b.call.number);
        if let Some(old) = told.as_ref().filter(|old| !same(waiting, old)) {
            self.say(&format!(
                "{}: answered after {} s",
                text(old),
                old.since.as_secs()
            ));
        }
        if let Some(new) = waiting.filter(|new| !same(told.as_ref(), new)) {
            self.say(&format!(
                "waiting for {}, {} s so far",
                text(new),
                new.since.as_secs()
            ));
        }
    }

    /// Prints a line that is no warning, unless nobody wants to be told.
    pub(super) fn say(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "strata: {text}");
        }
    }

    /// Prints the warnings of a report that were not printed while it ran.
    pub(super) fn warn_rest(&self, warnings: &[String]) {
        for warning in warnings {
            self.warn(warning);
        }
    }

    fn warn(&self, text: &str) {
        let mut state = self.lock();
        if state.warned.iter().any(|w| w == text) {
            return;
        }
        state.warned.push(text.to_owned());
        let print = || {
            // Nobody is left to be told when standard error is gone.
            let _ = writeln!(std::io::stderr(), "strata: warning: {}", clean(text));
        };
        match &state.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// A panic elsewhere does not make the bar wrong.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, phase: Phase, bytes: Option<u64>) {
        if !self.draw {
            return;
        }
        let mut state = self.lock();
        let bar = ProgressBar::with_draw_target(bytes, target(state.hidden));
        let template = match bytes {
            Some(_) => {
                "{msg:9} {wide_bar} {percent:>3}% {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} ETA {eta}"
            }
            None => "{msg:9} {spinner} {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(phase.name());
        state.phase = phase.name();
        bar.enable_steady_tick(TICK);
        if let Some(old) = state.bar.replace(bar) {
            old.finish_and_clear();
        }
    }
}

/// Where the line is drawn.
fn target(hidden: bool) -> ProgressDrawTarget {
    match hidden {
        true => ProgressDrawTarget::hidden(),
        false => ProgressDrawTarget::stderr(),
    }
}

/// As long as this lives, the line is for something else.
pub(super) struct Hidden<'a>(&'a Progress);

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        self.0.set_hidden(false);
    }
}

impl Observer for Progress {
    fn event(&self, event: Event) {
        match event {
            Event::PhaseStarted { phase, bytes } => self.start(phase, bytes),
            Event::Advanced { bytes } => {
                if let Some(bar) = &self.lock().bar {
                    bar.inc(bytes);
                }
            }
            Event::PhaseFinished { .. } => self.finish(),
            Event::Warning(text) => self.warn(&text),
            Event::Unreadable(extent) => self.warn(&format!("{extent} cannot be read")),
        }
    }
}

//! Progress on standard error: phase, share, rate and time left; nothing where that is no terminal.

use super::args::OutputArgs;
use super::render::clean;
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
        if self.quiet {
            return;
        }
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

//! How the log reaches its writers.

use std::io;
#[cfg(test)]
use std::sync::mpsc::Receiver;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::lanes::Lane;
use super::writer::{Command, Writer};

/// The writers of all lanes. Dropping them seals the open segments and ends their threads.
pub(super) struct WriterHandles {
    /// It ends first, as it hands on commands to the other.
    main: WriterHandle,
    scattered: WriterHandle,
}

impl WriterHandles {
    /// Starts the writer of each lane, which gets the sender of commands to the next one.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(super) fn start(start: impl Fn(Lane, Option<Sender<Command>>) -> io::Result<WriterHandle>) -> io::Result<Self> {
        let scattered = start(Lane::Scattered, None)?;
        let main = start(Lane::Main, scattered.commands.lock().clone())?;
        Ok(Self { main, scattered })
    }

    fn of(&self, lane: Lane) -> &WriterHandle {
        match lane.waits_in() {
            Lane::Scattered => &self.scattered,
            Lane::Main | Lane::Unknown => &self.main,
        }
    }

    /// Sends a command to the writer of a lane, or gives it back when the log is shut.
    pub(super) fn send(&self, lane: Lane, command: Command) -> Option<Command> {
        match &*self.of(lane).commands.lock() {
            Some(commands) => commands.send(command).err().map(|error| error.0),
            None => Some(command),
        }
    }

    /// Takes no more commands. The writers have ended when what is returned has been called, which blocks.
    pub(super) fn end(&self) -> impl FnOnce() + Send + 'static {
        let (main, scattered) = (self.main.end(), self.scattered.end());
        move || {
            main();
            scattered();
        }
    }

    /// Tells the writer of a lane to work, if it does so when it is told to.
    #[cfg(test)]
    pub(super) fn step(&self, lane: Lane, step: impl FnOnce(&mut Writer)) {
        if let Some(Worker::Stepped(stepped)) = &mut *self.of(lane).worker.lock() {
            stepped.take_commands();
            step(&mut stepped.writer);
        }
    }
}

/// A writer. Dropping it seals the open segment and ends its thread.
pub(super) struct WriterHandle {
    commands: Mutex<Option<Sender<Command>>>,
    worker: Mutex<Option<Worker>>,
}

enum Worker {
    /// On a thread of its own.
    Thread(JoinHandle<()>),
    /// It works when it is told to, so that a simulation decides what happens when. Dropping it is a crash.
    #[cfg(test)]
    Stepped(Box<Stepped>),
}

#[cfg(test)]
struct Stepped {
    writer: Writer,
    received: Receiver<Command>,
}

#[cfg(test)]
impl Stepped {
    fn take_commands(&mut self) {
        while let Ok(command) = self.received.try_recv() {
            self.writer.take(command);
        }
    }
}

impl WriterHandle {
    fn new(commands: Sender<Command>, worker: Worker) -> Self {
        Self { commands: Mutex::new(Some(commands)), worker: Mutex::new(Some(worker)) }
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(writer: Writer) -> io::Result<Self> {
        let name = match writer.lane.waits_in() {
            Lane::Scattered => "log-scattered",
            Lane::Main | Lane::Unknown => "log-writer",
        };
        let (commands, received) = channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || writer.run(&received))?;
        Ok(Self::new(commands, Worker::Thread(thread)))
    }

    /// It works when it is told to.
    #[cfg(test)]
    #[allow(clippy::unnecessary_wraps, reason = "as the one with a thread")]
    pub(super) fn stepped(writer: Writer) -> io::Result<Self> {
        let (commands, received) = channel();
        Ok(Self::new(commands, Worker::Stepped(Box::new(Stepped { writer, received }))))
    }

    /// Takes no more commands. The writer has ended when what is returned has been called, which blocks.
    fn end(&self) -> impl FnOnce() + Send + 'static {
        drop(self.commands.lock().take());
        let thread = match self.worker.lock().take() {
            None => None,
            Some(Worker::Thread(thread)) => Some(thread),
            #[cfg(test)]
            Some(Worker::Stepped(mut stepped)) => {
                stepped.take_commands();
                stepped.writer.end();
                None
            }
        };
        move || {
            // A panic of it is in the log.
            let _ = thread.map(JoinHandle::join);
        }
    }
}

impl Drop for WriterHandle {
    fn drop(&mut self) {
        #[cfg(test)]
        if let Some(Worker::Stepped(_)) = &*self.worker.lock() {
            return;
        }
        self.end()();
    }
}

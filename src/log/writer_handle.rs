//! How the log reaches its writer.

use std::sync::mpsc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::writer::{Command, Writer};

/// The writer, on a thread of its own. Dropping it seals the open segment and ends the thread.
pub(super) enum WriterHandle {
    /// On a thread of its own.
    Thread { commands: Mutex<Option<mpsc::Sender<Command>>>, thread: Mutex<Option<JoinHandle<()>>> },
    /// It works when it is told to, so that a simulation decides what happens when. Dropping it is a crash.
    #[cfg(test)]
    Stepped(Mutex<Option<Box<Writer>>>),
}

impl WriterHandle {
    /// Starts the thread.
    pub(super) fn start(writer: Writer) -> std::io::Result<Self> {
        let (commands, received) = mpsc::channel();
        let thread = std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || writer.run(&received))?;
        Ok(Self::Thread { commands: Mutex::new(Some(commands)), thread: Mutex::new(Some(thread)) })
    }

    /// Sends a command, or gives it back when the log is shut.
    pub(super) fn send(&self, command: Command) -> Option<Command> {
        match self {
            Self::Thread { commands, .. } => match &*commands.lock() {
                Some(commands) => commands.send(command).err().map(|error| error.0),
                None => Some(command),
            },
            #[cfg(test)]
            Self::Stepped(writer) => match &mut *writer.lock() {
                Some(writer) => {
                    writer.take(command);
                    None
                }
                None => Some(command),
            },
        }
    }

    /// Takes no more commands. The writer has ended when what is returned has been called, which blocks.
    pub(super) fn end(&self) -> impl FnOnce() + Send + 'static {
        let thread = match self {
            Self::Thread { commands, thread } => {
                drop(commands.lock().take());
                thread.lock().take()
            }
            #[cfg(test)]
            Self::Stepped(writer) => {
                let writer = writer.lock().take();
                writer.into_iter().for_each(|writer| writer.end());
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
        match self {
            Self::Thread { .. } => self.end()(),
            #[cfg(test)]
            Self::Stepped(_) => {}
        }
    }
}

//! Where those who need a look at the process ask for it. One look serves all who had asked before it began, so that many
//! requests at once cost the process what one costs.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

/// Most that wait at a desk; others wait to be let in.
const PLACES: usize = 64;

/// Why there is no answer: a line of text, and of what kind it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The process has none of that.
    Absent(String),
    /// Not now, or not of this process as it is.
    Unavailable(String),
    /// It was tried, and did not work.
    Failed(String),
}

/// What is given to those who ask.
pub type Answer<T> = Result<Arc<T>, Refusal>;

/// One who waits.
pub struct Ask<W, T> {
    /// What for.
    pub what: W,
    reply: oneshot::Sender<Answer<T>>,
}

impl<W, T> Ask<W, T> {
    /// Gives the answer.
    pub fn answer(self, answer: Answer<T>) {
        // Who has gone away needs none.
        let _gone = self.reply.send(answer);
    }
}

/// The side of those who answer.
pub struct Desk<W, T>(mpsc::Receiver<Ask<W, T>>);

/// The side of those who ask.
pub struct Bell<W, T>(mpsc::Sender<Ask<W, T>>);

/// A desk, and its bell.
pub fn desk<W, T>() -> (Bell<W, T>, Desk<W, T>) {
    let (sender, receiver) = mpsc::channel(PLACES);
    (Bell(sender), Desk(receiver))
}

impl<W, T> Desk<W, T> {
    /// Waits until somebody asks, and gives all who do; nobody when there is nobody left to ask.
    pub async fn next(&mut self) -> Vec<Ask<W, T>> {
        let first = self.0.recv().await;
        self.with_others(first)
    }

    /// The same, for a thread of its own.
    pub fn blocking_next(&mut self) -> Vec<Ask<W, T>> {
        let first = self.0.blocking_recv();
        self.with_others(first)
    }

    fn with_others(&mut self, first: Option<Ask<W, T>>) -> Vec<Ask<W, T>> {
        let mut asks: Vec<Ask<W, T>> = first.into_iter().collect();
        while let Ok(another) = self.0.try_recv() {
            asks.push(another);
        }
        asks
    }
}

impl<W, T> Bell<W, T> {
    /// Asks, and waits for the answer.
    pub async fn ask(&self, what: W) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        let ended = || Refusal::Unavailable("the trace has ended".to_owned());
        self.0.send(Ask { what, reply }).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_look_serves_all_who_wait() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (bell, mut desk) = desk::<u8, u32>();
        let looks = runtime.block_on(async {
            let ask = |what| bell.ask(what);
            let answer = async {
                let asks = desk.next().await;
                let whats: Vec<u8> = asks.iter().map(|ask| ask.what).collect();
                for ask in asks {
                    ask.answer(Ok(Arc::new(7)));
                }
                whats
            };
            let (a, b, c, whats) = tokio::join!(ask(1), ask(2), ask(3), answer);
            assert!(
                [a, b, c]
                    .into_iter()
                    .all(|answer| answer.is_ok_and(|seven| *seven == 7))
            );
            whats
        });
        assert_eq!(looks, [1, 2, 3]);
    }

    #[test]
    fn nobody_is_left_waiting() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (bell, mut desk) = desk::<(), ()>();
        runtime.block_on(async {
            let dropped = async { drop(desk.next().await) };
            let (answer, ()) = tokio::join!(bell.ask(()), dropped);
            assert!(matches!(answer, Err(Refusal::Unavailable(_))));
            drop(bell);
            assert!(desk.next().await.is_empty());
        });
    }
}

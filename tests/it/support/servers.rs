//! A private PostgreSQL and a private RabbitMQ. Most tests share a pair; tests that stop servers have their own.

use std::sync::Arc;

use posthaste::dev::{self, PrivatePostgres, PrivateRabbit};
use tokio::sync::{Mutex, OnceCell};

pub struct Servers {
    pub postgres: Mutex<PrivatePostgres>,
    pub rabbit: Mutex<PrivateRabbit>,
}

impl Servers {
    /// The pair that all tests of this binary share. It ends with the process.
    pub async fn shared() -> Arc<Self> {
        static SHARED: OnceCell<Arc<Servers>> = OnceCell::const_new();
        Arc::clone(SHARED.get_or_init(Self::own).await)
    }

    /// A pair of one's own, to stop and to kill.
    pub async fn own() -> Arc<Self> {
        let started = dev::start_both(&dev::Options::default()).await;
        let (postgres, rabbit) = started.unwrap_or_else(|error| panic!("no private servers: {error}"));
        Arc::new(Self { postgres: Mutex::new(postgres), rabbit: Mutex::new(rabbit) })
    }

    pub async fn stop_postgres(&self) {
        self.postgres.lock().await.stop().await.unwrap();
    }

    pub async fn kill9_postgres(&self) {
        self.postgres.lock().await.kill9().await.unwrap();
    }

    pub async fn start_postgres(&self) {
        self.postgres.lock().await.start_again().await.unwrap();
    }

    pub async fn stop_rabbit(&self) {
        self.rabbit.lock().await.stop().await.unwrap();
    }

    pub async fn kill9_rabbit(&self) {
        self.rabbit.lock().await.kill9().await.unwrap();
    }

    pub async fn start_rabbit(&self) {
        self.rabbit.lock().await.start_again().await.unwrap();
    }
}

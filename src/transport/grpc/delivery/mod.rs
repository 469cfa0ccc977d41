//! `DeliveryService`: subscriptions, their states and dead letters, and the stream by which consumers pull.

mod consume;
mod convert;

use std::sync::Arc;

use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use crate::deliveries::subscriptions::{LETTERS_DEFAULT, Letters, Subscriptions};
use crate::transport::context::TransportContext;
use crate::transport::error::status;
use crate::transport::proto::delivery_service_server::DeliveryService;
use crate::transport::proto::{
    ConsumeRequest, ConsumeResponse, CreateSubscriptionRequest, CreateSubscriptionResponse, DeleteSubscriptionRequest,
    DeleteSubscriptionResponse, DiscardDeadLettersRequest, DiscardDeadLettersResponse, GetDeadLetterRequest,
    GetDeadLetterResponse, GetDeliveryStatusRequest, GetDeliveryStatusResponse, GetSubscriptionRequest,
    GetSubscriptionResponse, GetSubscriptionStatusRequest, GetSubscriptionStatusResponse, GetUserStatusRequest,
    GetUserStatusResponse, ListDeadLettersRequest, ListDeadLettersResponse, ListSubscriptionsRequest,
    ListSubscriptionsResponse, PauseSubscriptionRequest, PauseSubscriptionResponse, PauseUserRequest,
    PauseUserResponse, ReplayDeadLettersRequest, ReplayDeadLettersResponse, ResumeSubscriptionRequest,
    ResumeSubscriptionResponse, ResumeUserRequest, ResumeUserResponse, UpdateSubscriptionRequest,
    UpdateSubscriptionResponse,
};

/// Answers calls about deliveries.
pub(super) struct Deliveries {
    context: Arc<TransportContext>,
}

impl Deliveries {
    pub(super) const fn new(context: Arc<TransportContext>) -> Self {
        Self { context }
    }

    fn subscriptions(&self) -> &Arc<Subscriptions> {
        &self.context.app.subscriptions
    }
}

#[tonic::async_trait]
impl DeliveryService for Deliveries {
    type ConsumeStream = BoxStream<'static, Result<ConsumeResponse, Status>>;

    async fn consume(
        &self,
        request: Request<Streaming<ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        consume::begin(&self.context, request).await.map(Response::new)
    }

    async fn create_subscription(
        &self,
        request: Request<CreateSubscriptionRequest>,
    ) -> Result<Response<CreateSubscriptionResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let CreateSubscriptionRequest { name, start, handler, settings } = request.into_inner();
        let start = convert::start(start).map_err(status::of)?;
        let draft = convert::draft(handler, settings).map_err(status::of)?;
        let created = self.subscriptions().create(&org_id, &name, start, draft).await;
        let (subscription, secret) = created.map_err(status::of)?;
        let subscription = Some(convert::subscription(subscription));
        Ok(Response::new(CreateSubscriptionResponse { subscription, secret: secret.unwrap_or_default() }))
    }

    async fn get_subscription(
        &self,
        request: Request<GetSubscriptionRequest>,
    ) -> Result<Response<GetSubscriptionResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let found = self.subscriptions().find(&org_id, &request.get_ref().name).await.map_err(status::of)?;
        Ok(Response::new(GetSubscriptionResponse { subscription: Some(convert::subscription(found)) }))
    }

    async fn list_subscriptions(
        &self,
        request: Request<ListSubscriptionsRequest>,
    ) -> Result<Response<ListSubscriptionsResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let all = self.subscriptions().list(&org_id).await.map_err(status::of)?;
        let subscriptions = all.into_iter().map(convert::subscription).collect();
        Ok(Response::new(ListSubscriptionsResponse { subscriptions }))
    }

    async fn update_subscription(
        &self,
        request: Request<UpdateSubscriptionRequest>,
    ) -> Result<Response<UpdateSubscriptionResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let UpdateSubscriptionRequest { name, handler, settings } = request.into_inner();
        let draft = convert::draft(handler, settings).map_err(status::of)?;
        let changed = self.subscriptions().change(&org_id, &name, draft).await.map_err(status::of)?;
        Ok(Response::new(UpdateSubscriptionResponse { subscription: Some(convert::subscription(changed)) }))
    }

    async fn delete_subscription(
        &self,
        request: Request<DeleteSubscriptionRequest>,
    ) -> Result<Response<DeleteSubscriptionResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        self.subscriptions().delete(&org_id, &request.get_ref().name).await.map_err(status::of)?;
        Ok(Response::new(DeleteSubscriptionResponse {}))
    }

    async fn pause_subscription(
        &self,
        request: Request<PauseSubscriptionRequest>,
    ) -> Result<Response<PauseSubscriptionResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let paused = self.subscriptions().set_paused(&org_id, &request.get_ref().name, true).await;
        let subscription = Some(convert::subscription(paused.map_err(status::of)?));
        Ok(Response::new(PauseSubscriptionResponse { subscription }))
    }

    async fn resume_subscription(
        &self,
        request: Request<ResumeSubscriptionRequest>,
    ) -> Result<Response<ResumeSubscriptionResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let resumed = self.subscriptions().set_paused(&org_id, &request.get_ref().name, false).await;
        let subscription = Some(convert::subscription(resumed.map_err(status::of)?));
        Ok(Response::new(ResumeSubscriptionResponse { subscription }))
    }

    async fn get_subscription_status(
        &self,
        request: Request<GetSubscriptionStatusRequest>,
    ) -> Result<Response<GetSubscriptionStatusResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let report = self.subscriptions().status(&org_id, &request.get_ref().name).await.map_err(status::of)?;
        Ok(Response::new(convert::report(report)))
    }

    async fn get_delivery_status(
        &self,
        request: Request<GetDeliveryStatusRequest>,
    ) -> Result<Response<GetDeliveryStatusResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let GetDeliveryStatusRequest { name, event_id } = request.get_ref();
        let found = self.subscriptions().event(&org_id, name, event_id).await.map_err(status::of)?;
        Ok(Response::new(convert::event_status(found)))
    }

    async fn get_user_status(
        &self,
        request: Request<GetUserStatusRequest>,
    ) -> Result<Response<GetUserStatusResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let GetUserStatusRequest { name, user_id } = request.get_ref();
        let found = self.subscriptions().user(&org_id, name, user_id).await.map_err(status::of)?;
        Ok(Response::new(convert::user_status(&found)))
    }

    async fn pause_user(&self, request: Request<PauseUserRequest>) -> Result<Response<PauseUserResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let PauseUserRequest { name, user_id } = request.get_ref();
        self.subscriptions().pause_user(&org_id, name, user_id, true).await.map_err(status::of)?;
        Ok(Response::new(PauseUserResponse {}))
    }

    async fn resume_user(&self, request: Request<ResumeUserRequest>) -> Result<Response<ResumeUserResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let ResumeUserRequest { name, user_id } = request.get_ref();
        self.subscriptions().pause_user(&org_id, name, user_id, false).await.map_err(status::of)?;
        Ok(Response::new(ResumeUserResponse {}))
    }

    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let ListDeadLettersRequest { name, from, limit } = request.get_ref();
        let limit = if *limit == 0 { LETTERS_DEFAULT } else { *limit as usize };
        let (letters, next) = self.subscriptions().letters(&org_id, name, *from, limit).await.map_err(status::of)?;
        let dead_letters = letters.iter().map(convert::dead_letter).collect();
        Ok(Response::new(ListDeadLettersResponse { dead_letters, next: next.unwrap_or_default() }))
    }

    async fn get_dead_letter(
        &self,
        request: Request<GetDeadLetterRequest>,
    ) -> Result<Response<GetDeadLetterResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let GetDeadLetterRequest { name, number } = request.get_ref();
        let letter = self.subscriptions().letter(&org_id, name, *number).await.map_err(status::of)?;
        Ok(Response::new(GetDeadLetterResponse { dead_letter: Some(convert::dead_letter(&letter)) }))
    }

    async fn replay_dead_letters(
        &self,
        request: Request<ReplayDeadLettersRequest>,
    ) -> Result<Response<ReplayDeadLettersResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let ReplayDeadLettersRequest { name, numbers, all } = request.into_inner();
        let letters = Letters::of(numbers, all).map_err(status::of)?;
        let replayed = self.subscriptions().replay(&org_id, &name, &letters).await.map_err(status::of)?;
        Ok(Response::new(ReplayDeadLettersResponse { replayed }))
    }

    async fn discard_dead_letters(
        &self,
        request: Request<DiscardDeadLettersRequest>,
    ) -> Result<Response<DiscardDeadLettersResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let DiscardDeadLettersRequest { name, numbers, all } = request.into_inner();
        let letters = Letters::of(numbers, all).map_err(status::of)?;
        let discarded = self.subscriptions().discard(&org_id, &name, &letters).await.map_err(status::of)?;
        Ok(Response::new(DiscardDeadLettersResponse { discarded }))
    }
}

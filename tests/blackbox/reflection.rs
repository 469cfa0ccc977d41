//! The protocol describes itself.

use tokio_stream::StreamExt as _;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::service::TestService;

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_every_service_and_describes_their_messages() {
    let service = TestService::new().await;
    let mut client = ServerReflectionClient::new(service.channel().await);
    let symbol = "tallyhouse.v1.IngestService".to_owned();
    let requests = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol(symbol),
        MessageRequest::FileContainingSymbol("tallyhouse.v1.Nothing".to_owned()),
    ];
    let request = |wanted| ServerReflectionRequest { host: String::new(), message_request: Some(wanted) };
    let stream = client.server_reflection_info(tokio_stream::iter(requests.map(request))).await.unwrap();
    let mut answers = stream.into_inner();

    let listed = answered(answers.next().await);
    let MessageResponse::ListServicesResponse(listed) = listed else { panic!("{listed:?}") };
    let mut names: Vec<&str> = listed.service.iter().map(|service| service.name.as_str()).collect();
    names.sort_unstable();
    for service in
        ["IngestService", "MetricsService", "OrganizationService", "OutcomeService", "QueryService", "SegmentService"]
    {
        assert!(names.contains(&format!("tallyhouse.v1.{service}").as_str()), "{service} of {names:?}");
    }
    assert!(names.contains(&"grpc.health.v1.Health"), "{names:?}");

    let described = answered(answers.next().await);
    let MessageResponse::FileDescriptorResponse(described) = described else { panic!("{described:?}") };
    let files = described.file_descriptor_proto.iter().map(|file| {
        let file: prost_types::FileDescriptorProto = prost::Message::decode(file.as_slice()).unwrap();
        file
    });
    let services: Vec<_> = files.flat_map(|file| file.service).collect();
    let ingest = services.iter().find(|service| service.name() == "IngestService").expect("the service");
    let methods: Vec<&str> = ingest.method.iter().map(|method| method.name()).collect();
    assert_eq!(methods, ["Ingest", "IngestBatch"]);

    // What there is not is said, by an answer or by the stream's end.
    if let Some(Ok(answer)) = answers.next().await {
        assert!(matches!(answer.message_response, Some(MessageResponse::ErrorResponse(_))), "{answer:?}");
    }
}

fn answered(answer: Option<Result<ServerReflectionResponse, tonic::Status>>) -> MessageResponse {
    answer.unwrap().unwrap().message_response.unwrap()
}

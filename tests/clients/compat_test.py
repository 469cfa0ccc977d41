"""The Python libraries of other systems, unmodified, pointed at the service.

The answer to each library's first call is lost, so that the library sends the same again by itself; CloudEvents'
library sends nothing, so there it is the HTTP client. Everything counts once.
"""

import json
import os
import time
import unittest
from datetime import datetime, timedelta, timezone
from urllib.parse import urlencode

import requests
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from lossy_gateway import grpc_gateway, http_gateway
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from posthog import Posthog
from requests.adapters import HTTPAdapter
from segment.analytics.client import Client as Segment
from urllib3.util.retry import Retry

URL = os.environ["TALLYHOUSE_URL"]
AUTHORIZATION = {"authorization": f"Bearer {os.environ['TALLYHOUSE_TOKEN']}"}
# Longest wait for what was acknowledged to be counted, in seconds.
COUNTED_SECONDS_MAX = 30


def create_write_key():
    answer = requests.post(f"{URL}/api/v1/write-keys", json={"name": "python"}, headers=AUTHORIZATION)
    answer.raise_for_status()
    return answer.json()["text"]


def get(path, **query):
    answer = requests.get(f"{URL}{path}?{urlencode(query)}", headers=AUTHORIZATION)
    answer.raise_for_status()
    return answer


def events_of(event_type):
    """The events of a type, once everything acknowledged until now is counted."""
    now = datetime.now(timezone.utc)
    days = {"start_date": now.date(), "end_date": (now + timedelta(days=1)).date(), "metrics": "events"}
    deadline = time.monotonic() + COUNTED_SECONDS_MAX
    while datetime.fromisoformat(get("/api/v1/metrics/summary", **days).headers["x-watermark"]) < now:
        assert time.monotonic() < deadline, "what was acknowledged is not counted in time"
        time.sleep(0.05)
    return get("/api/v1/events", event_type=event_type, limit=100).json()["events"]


class Libraries(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.write_key = create_write_key()

    def assert_repeated(self, answers, counted):
        """The service took everything of the first call, and knew it in the second."""
        first, second = map(json.loads, answers)
        self.assertEqual((first["accepted"], first["duplicates"]), (counted, 0))
        self.assertEqual((second["accepted"], second["duplicates"]), (0, counted))

    def assert_one(self, event_type):
        """One event of this type, of Ann, is stored."""
        (event,) = events_of(event_type)
        self.assertEqual(event["user_id"], "ann")
        self.assertEqual(event["properties"]["total"], 5)
        return event

    def test_segment(self):
        for gzip in (False, True):
            event = "Python Order" if gzip else "Python Order Completed"
            errors = []
            with http_gateway(URL) as (url, answers):
                client = Segment(self.write_key, host=url, gzip=gzip, on_error=lambda error, _: errors.append(error))
                client.track("ann", event, {"total": 5})
                client.identify("ann", {"plan": "pro"})
                client.flush()
                client.shutdown()
            self.assertEqual(errors, [])
            self.assert_repeated(answers, 2)
            self.assert_one(event.replace(" ", "_"))
        self.assertEqual(len(events_of("identify")), 2)

    def test_posthog(self):
        for gzip in (False, True):
            event = "python signup" if gzip else "python signed up"
            errors = []
            with http_gateway(URL) as (url, answers):
                client = Posthog(self.write_key, host=url, gzip=gzip, on_error=lambda error, _: errors.append(error))
                event_id = client.capture(event, distinct_id="ann", properties={"total": 5})
                client.shutdown()
            self.assertEqual(errors, [])
            self.assert_repeated(answers, 1)
            self.assertEqual(self.assert_one(event.replace(" ", "_"))["event_id"], str(event_id))

    def test_cloudevents(self):
        for mode, encode in (("binary", to_binary_event), ("structured", to_structured_event)):
            attributes = {
                "id": mode,
                "source": "/python",
                "type": f"python.{mode}",
                "subject": "ann",
                "time": datetime.now(timezone.utc),
                "datacontenttype": "application/json",
            }
            message = encode(CloudEvent(attributes, {"total": 5}))
            with http_gateway(URL) as (url, answers), requests.Session() as session:
                session.mount(url, HTTPAdapter(max_retries=Retry(3, allowed_methods=None)))
                target = f"{url}/cloudevents?write_key={self.write_key}"
                session.post(target, data=message.body, headers=message.headers).raise_for_status()
            self.assert_repeated(answers, 1)
            self.assertEqual(self.assert_one(f"python.{mode}")["event_id"], f"{mode}@/python")

    def export(self, exporter, event_name):
        provider = LoggerProvider()
        provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
        provider.get_logger("shop").emit(
            event_name=event_name,
            timestamp=time.time_ns(),
            severity_number=SeverityNumber.INFO,
            attributes={"user.id": "ann", "total": 5},
        )
        provider.force_flush()
        provider.shutdown()

    def test_opentelemetry_over_grpc(self):
        with grpc_gateway(URL) as (url, answers):
            headers = {"authorization": f"Bearer {self.write_key}"}
            self.export(GrpcExporter(endpoint=url, insecure=True, headers=headers), "python_grpc")
        self.assertEqual(len(answers), 2)
        self.assert_one("python_grpc")

    def test_opentelemetry_over_http(self):
        with http_gateway(URL) as (url, answers):
            headers = {"authorization": f"Bearer {self.write_key}"}
            self.export(HttpExporter(endpoint=f"{url}/v1/logs", headers=headers), "python_http")
        self.assertEqual(len(answers), 2)
        self.assert_one("python_http")


if __name__ == "__main__":
    unittest.main()

"""What a well-formed request gets: the API's shapes through the real SDK, and the same words every time."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
import requests

from bioforge.simulator import SimulatorOptions, text
from bioforge.simulator.answers import answer

ABAKANOWICZ = "Abakanowicz, Magdalena\nPolish sculptor, born 1930"


def test_a_response_has_the_shape_the_sdk_knows(client):
    response = client.responses.create(
        model="gpt-6-luna",
        instructions="Write a biography.",
        input=ABAKANOWICZ,
        max_output_tokens=400,
        temperature=0.5,
        metadata={"artist": "1"},
    )
    assert response.object == "response"
    assert response.id.startswith("resp_")
    assert response.status == "completed"
    assert response.error is None
    assert response.incomplete_details is None
    assert response.model == "gpt-6-luna-2026-05-01"
    assert response.service_tier == "default"
    assert response.instructions == "Write a biography."
    assert response.max_output_tokens == 400
    assert response.temperature == 0.5
    assert response.metadata == {"artist": "1"}
    assert response.output_text.startswith("Simulated answer ")
    assert " for: Abakanowicz, Magdalena. " in response.output_text
    usage = response.usage
    assert usage.input_tokens == text.count_tokens("Write a biography." + ABAKANOWICZ)
    reasoning = usage.output_tokens_details.reasoning_tokens
    assert usage.output_tokens == text.count_tokens(response.output_text) + reasoning
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.input_tokens_details.cached_tokens == 0
    type(response).model_validate(response.model_dump())


def test_a_chat_completion_has_the_shape_the_sdk_knows(client):
    completion = client.chat.completions.create(
        model="gpt-6.1-terra-2026-03-04",
        messages=[
            {"role": "system", "content": "Write a biography."},
            {"role": "user", "content": [{"type": "text", "text": ABAKANOWICZ}]},
        ],
        service_tier="flex",
    )
    assert completion.id.startswith("chatcmpl-")
    assert completion.object == "chat.completion"
    assert completion.model == "gpt-6.1-terra-2026-03-04"
    assert completion.service_tier == "flex"
    (choice,) = completion.choices
    assert choice.finish_reason == "stop"
    assert choice.message.role == "assistant"
    assert choice.message.refusal is None
    assert " for: Abakanowicz, Magdalena. " in choice.message.content
    usage = completion.usage
    assert usage.prompt_tokens == text.count_tokens("Write a biography." + ABAKANOWICZ)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    type(completion).model_validate(completion.model_dump())


def test_the_async_client_gets_the_same_text(server, client):
    async def ask():
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as asynchronous:
            return await asynchronous.responses.create(model="gpt-6-luna", input=ABAKANOWICZ)

    first = asyncio.run(ask())
    second = client.responses.create(model="gpt-6-luna", input=ABAKANOWICZ)
    assert first.output_text == second.output_text
    assert first.id != second.id


def test_the_order_of_keys_does_not_matter_and_the_content_does():
    def words(**body):
        return answer("/v1/responses", body, SimulatorOptions()).body["output"]

    first = words(model="m", input="Kobro, Katarzyna")
    assert first == words(input="Kobro, Katarzyna", model="m")
    assert first != words(model="m", input="Kobro, Katarzyna ")


def test_a_reply_is_a_function_of_its_arguments():
    body, options = {"model": "m", "input": "Kobro"}, SimulatorOptions(faults={"drop_before": 0.5}, seed=2)
    replies = [answer("/v1/responses", body, options, occurrence) for occurrence in range(1, 20)]
    assert replies == [answer("/v1/responses", body, options, occurrence) for occurrence in range(1, 20)]
    assert len({reply.body["id"] for reply in replies}) == len(replies)
    assert {(reply.fault, reply.bill is None) for reply in replies} == {("drop_before", True), (None, False)}


@pytest.mark.parametrize("name", ["x", "Abakanowicz, Magdalena", "草間 彌生", "A" * 500])
def test_texts_are_short_enough_for_a_limit_of_400(name):
    for number in range(50):
        reply = answer("/v1/responses", {"model": "m", "input": f"{name} {number}"}, SimulatorOptions())
        assert reply.body["status"] == "completed"
        details = reply.body["usage"]["output_tokens_details"]
        assert 40 <= reply.body["usage"]["output_tokens"] - details["reasoning_tokens"] <= 105


def test_a_limit_cuts_the_text_and_says_so(client):
    response = client.responses.create(model="gpt-6-luna", input=ABAKANOWICZ, max_output_tokens=16)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage.output_tokens == 16
    assert len(response.output_text) == 16 * 4
    whole = client.responses.create(model="gpt-6-luna", input=ABAKANOWICZ, max_output_tokens=400)
    assert whole.status == "completed"

    for name in ("max_tokens", "max_completion_tokens"):
        completion = client.chat.completions.create(
            model="gpt-6-luna", messages=[{"role": "user", "content": "Kobro"}], **{name: 5}
        )
        assert completion.choices[0].finish_reason == "length"
        assert completion.usage.completion_tokens == 5


def test_reasoning_never_pushes_an_answer_over_its_limit(start, connect):
    client = connect(start(several_parts=True))
    for number in range(20):
        response = client.responses.create(model="m", input=f"Artist {number}", max_output_tokens=105)
        assert response.status == "completed"
        assert response.usage.output_tokens <= 105


def test_one_in_five_responses_has_a_reasoning_item_and_two_parts(start, connect):
    def several(client):
        answers = [client.responses.create(model="m", input=f"Artist {number}") for number in range(60)]
        return [reply for reply in answers if len(reply.output) > 1]

    some = several(connect(start()))
    assert 4 <= len(some) <= 24
    for response in some:
        reasoning, message = response.output
        assert reasoning.type == "reasoning"
        assert [part.type for part in message.content] == ["output_text", "output_text"]
        assert response.output_text.startswith("Simulated answer ")
    assert len(several(connect(start(several_parts=True)))) == 60
    assert several(connect(start(several_parts=False))) == []


def test_a_prompt_object_needs_neither_input_nor_model(client):
    prompt = {
        "id": "pmpt_1",
        "version": "3",
        "variables": {"artist_data": "", "artist_name": "Kobro, Katarzyna"},
    }
    response = client.responses.create(prompt=prompt)
    assert " for: Kobro, Katarzyna. " in response.output_text
    assert response.prompt.id == "pmpt_1"
    assert response.model == "gpt-6-luna-2026-05-01"
    with pytest.raises(openai.NotFoundError):
        client.responses.create(prompt={"id": "pmpt_missing_1"})


def test_the_text_is_json_where_json_is_asked_for(client):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "born": {"type": ["integer", "null"]}},
        "required": ["name", "born"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "name": "bio", "schema": schema, "strict": True}
    response = client.responses.create(model="m", input=ABAKANOWICZ, text={"format": wanted})
    value = json.loads(response.output_text)
    assert set(value) == {"name", "born"}
    assert "Abakanowicz" in value["name"]
    assert response.text.format.name == "bio"

    completion = client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "Kobro"}],
        response_format={"type": "json_schema", "json_schema": {"name": "bio", "schema": schema}},
    )
    assert set(json.loads(completion.choices[0].message.content)) == {"name", "born"}

    response = client.responses.create(model="m", input="Kobro", text={"format": {"type": "json_object"}})
    assert json.loads(response.output_text)["simulated"] is True


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("auto", "default"),
        ("default", "default"),
        ("flex", "flex"),
        ("priority", "priority"),
        ("fast", "priority"),
    ],
)
def test_the_service_tier_is_the_one_used(client, asked, served):
    assert client.responses.create(model="m", input="Kobro", service_tier=asked).service_tier == served


def test_models_are_listed_and_looked_up(client):
    listed = [model.id for model in client.models.list()]
    assert "gpt-6-luna" in listed
    assert "gpt-6-luna-2026-05-01" in listed
    assert client.models.retrieve("anything").id == "anything"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("missing-1")
    assert caught.value.code == "model_not_found"


def test_a_response_can_be_fetched_again_unless_it_was_not_stored(client):
    made = client.responses.create(model="m", input="Kobro")
    assert client.responses.retrieve(made.id).model_dump() == made.model_dump()
    unstored = client.responses.create(model="m", input="Kobro", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(unstored.id)


def test_the_last_thousand_responses_are_kept(server):
    with requests.Session() as session:
        session.headers["Authorization"] = "Bearer key"
        url = f"{server.base_url}/responses"
        ids = [session.post(url, json={"model": "m", "input": str(n)}).json()["id"] for n in range(1001)]
        assert [session.get(f"{url}/{ids[place]}").status_code for place in (0, 1, 1000)] == [404, 200, 200]


def test_headers_name_the_request_and_the_time_it_took(server):
    with requests.Session() as session:
        session.headers["Authorization"] = "Bearer key"
        url, body = f"{server.base_url}/responses", {"model": "m", "input": "Kobro"}
        first, second = session.post(url, json=body), session.post(url, json=body)
    assert first.headers["content-type"] == "application/json"
    assert first.headers["x-request-id"].startswith("req_")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert int(first.headers["openai-processing-ms"]) >= 0
    assert not [name for name in first.headers if name.lower().startswith("x-ratelimit")]
    ids = [charge.request_id for charge in server.ledger.entries()]
    assert ids == [first.headers["x-request-id"], second.headers["x-request-id"]]

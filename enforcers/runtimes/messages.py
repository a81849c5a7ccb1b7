"""The part of the runtimes' interfaces that is used, as protobuf messages.

Sources: Kubernetes `cri-api`, ``runtime.v1``; containerd's ``services.events.v1``, ``services.containers.v1`` and
``events``. Fields that are not listed are skipped by the decoder. A map travels as repeated entries of key and value,
and is declared so.
"""

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE: Final = "eastwest.cri"
MESSAGES: Final = {
    "Entry": "key:1:string value:2:string",
    "Metadata": "name:1:string uid:2:string namespace:3:string",
    "VersionRequest": "version:1:string",
    "VersionResponse": "runtime_name:2:string runtime_version:3:string",
    "StateValue": "state:1:int32",
    "SandboxFilter": "state:2:StateValue",
    "ListSandboxesRequest": "filter:1:SandboxFilter",
    "ListedSandbox": (
        "id:1:string metadata:2:Metadata state:3:int32 created_at:4:int64 annotations:6:Entry* runtime_handler:7:string"
    ),
    "ListSandboxesResponse": "items:1:ListedSandbox*",
    "SandboxStatusRequest": "id:1:string verbose:2:bool",
    "Address": "ip:1:string",
    "Network": "ip:1:string additional_ips:2:Address*",
    "NamespaceOption": "network:1:int32",
    "Namespace": "options:2:NamespaceOption",
    "Linux": "namespaces:1:Namespace",
    "SandboxStatus": "id:1:string network:5:Network linux:6:Linux",
    "SandboxStatusResponse": "status:1:SandboxStatus info:2:Entry*",
    "ListContainersRequest": "",
    "Image": "image:1:string",
    "ContainerMetadata": "name:1:string attempt:2:uint32",
    "ListedContainer": (
        "id:1:string sandbox_id:2:string metadata:3:ContainerMetadata image:4:Image state:6:int32 annotations:9:Entry*"
    ),
    "ListContainersResponse": "containers:1:ListedContainer*",
    "ContainerStatusRequest": "id:1:string",
    "ContainerStatus": "started_at:5:int64 image:8:Image",
    "ContainerStatusResponse": "status:1:ContainerStatus",
    "SubscribeRequest": "filters:1:string*",
    "Any": "value:2:bytes",
    "Envelope": "topic:3:string event:4:Any",
    "ContainerEvent": "id:1:string",
    "GetContainerRequest": "id:1:string",
    "Timestamp": "seconds:1:int64 nanos:2:int32",
    "Extension": "key:1:string value:2:Any",
    "ContainerRecord": "id:1:string created_at:8:Timestamp extensions:10:Extension*",
    "GetContainerResponse": "container:1:ContainerRecord",
}
"""Message → its fields as ``name:number:type``, a star for repeated ones."""

SANDBOX_READY: Final = 0
NETWORK_OF_NODE: Final = 2
CONTAINER_STATES: Final = {0: "created", 1: "running", 2: "exited", 3: "unknown"}

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {
    "string": _Field.TYPE_STRING,
    "int32": _Field.TYPE_INT32,
    "uint32": _Field.TYPE_UINT32,
    "int64": _Field.TYPE_INT64,
    "bool": _Field.TYPE_BOOL,
    "bytes": _Field.TYPE_BYTES,
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="eastwest/cri.proto", package=PACKAGE, syntax="proto3")
    for message, fields in MESSAGES.items():
        declared = file.message_type.add(name=message)
        for field in fields.split():
            name, number, type_ = field.split(":")
            label = _Field.LABEL_REPEATED if type_.endswith("*") else _Field.LABEL_OPTIONAL
            type_ = type_.removesuffix("*")
            added = declared.field.add(name=name, number=int(number), label=label)
            if type_ in _SCALARS:
                added.type = _SCALARS[type_]
            else:
                added.type, added.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{type_}"
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())


def message_type(name: str) -> Any:
    """The class of the message *name*; its attributes are those listed above."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))

"""All kinds of records there are, by the name under which the journal keeps them."""

from typing import Final

from controlplane.state.delivery_records import ApiDestinationRecord, ConnectionRecord, DeliveryRecord
from controlplane.state.records import (
    ActivationRecord,
    ClusterRecord,
    FamilyRecord,
    IdempotencyRecord,
    InstanceRecord,
    Record,
    SettingRecord,
    TaskDefinitionRecord,
    TaskRecord,
)
from controlplane.state.schedule_records import (
    RuleRecord,
    ScheduleGroupRecord,
    ScheduleRecord,
    ScheduleRunRecord,
)
from controlplane.state.service_records import (
    CapacityProviderRecord,
    DeploymentRecord,
    EventRecord,
    RevisionRecord,
    ServiceRecord,
    TaskSetRecord,
)

__all__ = ["RECORD_KINDS"]

RECORD_KINDS: Final[dict[str, type[Record]]] = {
    record.kind: record
    for record in (
        ClusterRecord,
        FamilyRecord,
        TaskDefinitionRecord,
        InstanceRecord,
        TaskRecord,
        ActivationRecord,
        IdempotencyRecord,
        SettingRecord,
        ServiceRecord,
        RevisionRecord,
        DeploymentRecord,
        EventRecord,
        TaskSetRecord,
        CapacityProviderRecord,
        ScheduleRecord,
        ScheduleGroupRecord,
        RuleRecord,
        ScheduleRunRecord,
        ConnectionRecord,
        ApiDestinationRecord,
        DeliveryRecord,
    )
}

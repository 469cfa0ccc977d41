# Where the state of prod is kept: a storage account in its subscription, made
# beforehand (README.md), which only those who deploy prod can read.
resource_group_name  = "rg-tallyhouse-prod-state"
storage_account_name = "thstateprod"
container_name       = "state"
key                  = "tallyhouse.tfstate"
